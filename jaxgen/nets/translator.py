r"""The encoder-decoder transformer: each token of a text from those before it and from another text.

With the encoded source s, of blocks of attention in both directions that do not see the padding:

    (1)  h <- h + Attention(norm(h)),  h <- h + Cross(norm(h), s),  h <- h + MLP(norm(h)),  depth times

where the queries of Cross come from h, and its keys and values from s. Those are computed once for a text.

Source: Attention Is All You Need, https://arxiv.org/abs/1706.03762; normalised before each part, as in
https://arxiv.org/abs/2002.04745.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Integer

from jaxgen.distributions import check_levels
from jaxgen.nets.attention import attend
from jaxgen.nets.causal import Causal
from jaxgen.nets.dense import dot_rows
from jaxgen.nets.transformer_blocks import MODERN, Attention, Block, FeedForward, Style, normal_dense
from jaxgen.types import Cond

__all__ = ["Translator"]

Tokens = Float[Array, "n _ width"]


class _Cross(nn.Module):
    """Attention from one text to another."""

    width: int
    num_heads: int
    style: Style
    scale: float

    def setup(self) -> None:
        self.query = normal_dense(self.width, self.style, None)
        self.key_and_value = normal_dense(2 * self.width, self.style, None)
        self.out = normal_dense(self.width, self.style, None, scale=self.scale)

    def memory(self, encoded: Tokens) -> Any:
        """Keys and values `[n, heads, s, d]` of an encoded text, in the order of axes that every step wants."""
        return tuple(self._heads(part).swapaxes(1, 2) for part in jnp.split(self.key_and_value(encoded), 2, axis=-1))

    def _heads(self, h: Tokens) -> Any:
        return h.reshape(*h.shape[:2], self.num_heads, -1)

    def __call__(self, h: Tokens, memory: Any, mask: Any) -> Tokens:
        key, value = (part.swapaxes(1, 2) for part in memory)
        mixed = attend(self._heads(self.query(h)), key, value, mask=mask)
        return self.out(mixed.reshape(h.shape))


class _DecoderBlock(nn.Module):
    """(1)."""

    width: int
    num_heads: int
    style: Style
    length: int
    scale: float
    hidden: int | None
    dropout: float

    def setup(self) -> None:
        self.attention = Attention(self.num_heads, self.style, self.length, self.scale)
        self.cross = _Cross(self.width, self.num_heads, self.style, self.scale)
        self.mlp = FeedForward(self.hidden, self.style, self.scale)
        self.norms = [self.style.norm() for _ in range(3)]
        self.dropped = nn.Dropout(self.dropout)

    def __call__(self, h: Tokens, memory: Any, mask: Any, position: Any) -> Tokens:
        drop = lambda h: self.dropped(h, deterministic=not self.has_rng("dropout"))  # noqa: E731
        h = h + drop(self.attention(self.norms[0](h), position))
        h = h + drop(self.cross(self.norms[1](h), memory, mask))
        return h + drop(self.mlp(self.norms[2](h)))


class Translator(Causal):
    """Logits of every token of a text, from those before it and a source text `cond [n, source_length]`.

    Attributes:
        num_source_tokens: size of the vocabulary of the source.
        num_tokens: size of the vocabulary of the text.
        source_length: the most tokens of a source.
        length: the most tokens of a text.
        padding: the token of the source that is not there; at least one of a source is another.
        width: features of a token, a multiple of `num_heads`.
        depth: number of blocks of the encoder, and of the decoder.
        num_heads: heads of the attention.
        style: `transformer.GPT2` or `transformer.MODERN`.
        hidden: hidden width of the perceptrons; see `transformer.FeedForward`.
        dropout: share of features that are dropped in training.

    Raises:
        ValueError: if the width is no multiple of the heads, or a size is below 1; when called, if a source is longer
            than `source_length`, or none is given; and, outside of compiled functions, if it holds a token that there
            is not, or nothing but padding.

    Source: Attention Is All You Need, https://arxiv.org/abs/1706.03762.
    """

    num_source_tokens: int
    num_tokens: int
    source_length: int
    length: int
    padding: int = 0
    width: int = 256
    depth: int = 4
    num_heads: int = 4
    style: Style = MODERN
    hidden: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        sizes = (self.num_source_tokens, self.num_tokens, self.source_length, self.length, self.width, self.depth)
        if min(*sizes, self.num_heads) < 1:
            raise ValueError(f"vocabularies, lengths, width, depth and num_heads must be at least 1, got {sizes}")
        if self.width % self.num_heads or (self.style.turned and self.width // self.num_heads % 2):
            raise ValueError(f"width must be a multiple of {self.num_heads} heads (rotary: even), got {self.width}")
        super().__post_init__()

    def setup(self) -> None:
        """Makes the parts, which `context` and the call share."""
        scale, init = 1 / math.sqrt(3 * self.depth), nn.initializers.normal(0.02)
        sizes = (self.num_heads, self.style)
        self.source_tokens = nn.Embed(self.num_source_tokens, self.width, embedding_init=init)
        self.tokens = nn.Embed(self.num_tokens, self.width, embedding_init=init)
        self.first = self.param("first", init, (self.width,))
        if not self.style.turned:
            self.source_positions = self.param("source_positions", init, (self.source_length, self.width))
            self.positions = self.param("positions", init, (self.length, self.width))
        self.encoder = [
            Block(*sizes, self.source_length, scale, self.hidden, self.dropout, causal=False) for _ in range(self.depth)
        ]
        self.decoder = [
            _DecoderBlock(self.width, *sizes, self.length, scale, self.hidden, self.dropout) for _ in range(self.depth)
        ]
        self.norm, self.source_norm = self.style.norm(), self.style.norm()
        self.dropped = nn.Dropout(self.dropout)

    def context(self, cond: Cond) -> Any:
        """Keys and values of every block for the source `[n, s]`, and which of its tokens are there."""
        if cond is None or cond.ndim != 2 or cond.shape[1] > self.source_length:
            found = None if cond is None else cond.shape
            raise ValueError(f"expected a source [n, s] of at most {self.source_length} tokens, got shape {found}")
        self._check_values(cond)
        mask = (cond != self.padding)[:, None, None]
        h = self.source_tokens(cond)
        if not self.style.turned:
            h = h + self.source_positions[: cond.shape[1]]
        h = self._drop(h)
        for block in self.encoder:
            h = block(h, None, mask)
        encoded = self.source_norm(h)
        return [block.cross.memory(encoded) for block in self.decoder], mask

    def _check_values(self, cond: Any) -> None:
        """What a traced source cannot be asked: whether its tokens are some of the vocabulary, and any is there."""
        check_levels(cond, self.num_source_tokens, "the source")
        if isinstance(cond, jax.core.Tracer):
            return
        source = np.asarray(cond)  # a constant of a compiled function would be traced from its first operation on
        if (empty := (source == self.padding).all(1)).any():
            raise ValueError(f"source {empty.argmax()} of {len(source)} is empty: nothing but padding")

    def _drop(self, h: Tokens) -> Tokens:
        return self.dropped(h, deterministic=not self.has_rng("dropout"))

    def __call__(self, x: Integer[Array, "n ..."], context: Any, position: Any = None) -> Any:
        """Logits of every token, `x [n, t] -> [n, t, num_tokens]`; or of one, `[n] -> [n, num_tokens]`."""
        h: Any = self.tokens(x.reshape(x.shape[0], -1))
        first = jnp.broadcast_to(self.first, h[:, :1].shape)
        h = jnp.concatenate([first, h[:, :-1]], 1) if position is None else jnp.where(position == 0, first, h)
        if not self.style.turned:
            h = h + (self.positions[: h.shape[1]] if position is None else self.positions[position])
        h, (memories, mask) = self._drop(h), context
        for block, memory in zip(self.decoder, memories, strict=True):
            h = block(h, memory, mask, position)
        logits = dot_rows(self.norm(h), self.tokens.embedding.T)
        return logits if position is None else logits[:, 0]
