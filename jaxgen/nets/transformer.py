r"""The decoder-only transformer: each token from those before it, by causal self-attention.

With tokens x, their vectors E x, a start vector s (of the class, if there are classes) and positions P:

    (1)  h_0 = s + P_0,  h_i = E x_{i-1} + P_i
    (2)  h <- h + Attention(norm(h)),   h <- h + MLP(norm(h)),   depth times
    (3)  output_i = E^T norm(h_i), the logits of x_i

The blocks are those of `nets.transformer_blocks`: `GPT2` with a learned P, `MODERN` with rotary positions instead. For
an image the sequence is its pixels row by row and P is the sum of vectors of the row, the column and the channel.

Sources: Language Models are Unsupervised Multitask Learners (GPT-2),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf; Image
Transformer, https://arxiv.org/abs/1802.05751.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Integer

from jaxgen.nets.attention import attend
from jaxgen.nets.causal import Causal, labelled
from jaxgen.nets.dense import dot_rows
from jaxgen.nets.transformer_blocks import GPT2, Block, Style, Tokens, drop

__all__ = ["Transformer"]


class Transformer(Causal):
    """Each token of a text, or each pixel of an image, from those before it.

    Attributes:
        num_tokens: size of the vocabulary.
        shape: `(length,)` of texts, at most; `(height, width, channels)` of images.
        width: features of a token, a multiple of `num_heads`.
        depth: number of blocks.
        num_heads: heads of the attention.
        num_classes: number of labels; 0 for none.
        style: `GPT2` or `MODERN`.
        hidden: hidden width of the perceptrons; see `FeedForward`.
        dropout: share of features that are dropped in training.
        dtype: type of the products; parameters, sums along the depth and logits are float32.
        attention: `attend`, or `nets.attention.attend_fused` for the fused kernel of a GPU.

    Raises:
        ValueError: if the width is no multiple of the heads, the rotary features are odd, or a size is below 1.

    Source: Language Models are Unsupervised Multitask Learners; see the module.
    """

    num_tokens: int
    shape: Sequence[int]
    width: int = 128
    depth: int = 4
    num_heads: int = 4
    num_classes: int = 0
    style: Style = GPT2
    hidden: int | None = None
    dropout: float = 0.0
    dtype: Any = jnp.float32
    attention: Callable[..., Any] = attend

    def __post_init__(self) -> None:
        sizes = (self.num_tokens, *self.shape, self.width, self.depth, self.num_heads)
        if min(sizes) < 1:
            raise ValueError(f"num_tokens, shape, width, depth and num_heads must be at least 1, got {sizes}")
        if self.width % self.num_heads or (self.style.turned and self.width // self.num_heads % 2):
            raise ValueError(f"width must be a multiple of {self.num_heads} heads (rotary: even), got {self.width}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Integer[Array, "n ..."], context: Any = None, position: Any = None) -> Any:
        """Logits of every token, `x [n, *shape] -> [n, *shape, num_tokens]`; or of one, `[n] -> [n, num_tokens]`.

        Texts may be shorter than `shape` says.

        Raises:
            ValueError: if one is longer.
        """
        length, num = math.prod(self.shape), math.prod(x.shape[1:])
        if position is None and num > length:
            raise ValueError(f"a context of {length} positions cannot hold {num} tokens")
        embed = nn.Embed(self.num_tokens, self.width, embedding_init=nn.initializers.normal(0.02), name="tokens")
        labels = labelled(context, self.num_classes, x.shape[0])
        first = nn.Embed(max(1, self.num_classes), self.width, name="start")(labels)[:, None]
        h: Any = embed(x.reshape(x.shape[0], -1))
        h = jnp.concatenate([first, h[:, :-1]], 1) if position is None else jnp.where(position == 0, first, h)
        logits = self._logits(h, embed, position)
        return logits.reshape(*x.shape, -1) if position is None else logits[:, 0]

    def _logits(self, h: Tokens, embed: nn.Embed, position: Any) -> Float[Array, "n t tokens"]:
        """(2) and (3)."""
        if not self.style.turned:
            h = h + self._positions(h.shape[1], position)
        h = drop(h, self.dropout, active=self.has_rng("dropout"))
        for i in range(self.depth):
            block = Block(
                self.num_heads,
                self.style,
                math.prod(self.shape),
                1 / math.sqrt(2 * self.depth),
                self.hidden,
                self.dropout,
                dtype=self.dtype,
                mix=self.attention,
                name=f"block_{i}",
            )
            h = block(h, position)
        h, table = (x.astype(self.dtype) for x in (self.style.norm(name="norm")(h), embed.embedding))
        return dot_rows(h, table.T, preferred_element_type=jnp.float32)

    def _positions(self, num: int, position: Any) -> Float[Array, "1 t width"]:
        """The sum of the vectors of a position's coordinates, for the first `num` positions or for one."""
        where = jnp.unravel_index(jnp.arange(num) if position is None else position[None], self.shape)
        vectors = jnp.zeros(())
        for axis, (size, coordinate) in enumerate(zip(self.shape, where, strict=True)):
            table = self.param(f"positions_{axis}", nn.initializers.normal(0.02), (size, self.width))
            vectors = vectors + table[coordinate]
        return vectors[None]
