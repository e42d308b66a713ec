r"""The blocks of transformers: self-attention and a perceptron for each position, in two published layouts.

    h <- h + Attention(norm(h)),   h <- h + MLP(norm(h))                                         (1)

`GPT2` has layer norm, biases and GELU. `MODERN` has root mean square norm, no biases, SwiGLU = W_3 (silu(W_1 h) * W_2
h), and turns the features (a, b) of queries and keys by angles i f, f = 10000^(-2 j / d), so that their products depend
on differences of positions (rotary).

Sources: Language Models are Unsupervised Multitask Learners (GPT-2),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf; RoFormer,
https://arxiv.org/abs/2104.09864; Root Mean Square Layer Normalization, https://arxiv.org/abs/1910.07467; GLU Variants
Improve Transformer, https://arxiv.org/abs/2002.05202.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Integer

from jaxgen.nets.attention import attend
from jaxgen.nets.dense import Dense

__all__ = [
    "GPT2",
    "MODERN",
    "Attention",
    "Block",
    "FeedForward",
    "Style",
    "Tokens",
    "drop",
    "normal_dense",
    "rotary",
]

Tokens = Float[Array, "n t width"]
Heads = Float[Array, "n _ heads d"]


class Style(NamedTuple):
    """In what the published layouts differ, but for their sizes.

    Attributes:
        norm: makes a normalisation.
        gated: SwiGLU; otherwise two layers with GELU between them.
        turned: positions turn queries and keys; otherwise vectors of positions are added to those of tokens.
        use_bias: dense layers have biases.
    """

    norm: Callable[..., nn.Module] = functools.partial(nn.LayerNorm, epsilon=1e-5)
    gated: bool = False
    turned: bool = False
    use_bias: bool = True


GPT2 = Style()
"""Radford and others."""

MODERN = Style(functools.partial(nn.RMSNorm, epsilon=1e-6), gated=True, turned=True, use_bias=False)
"""Root mean square norm, rotary positions, SwiGLU."""


def rotary(h: Heads, positions: Integer[Array, " t"], *, base: float = 10_000.0) -> Heads:
    """Turns the pairs of features (j, j + d/2) of every head by the angles position * base^(-2 j / d), in float32."""
    half = h.shape[-1] // 2
    angles = positions[:, None, None] * base ** (-jnp.arange(half) / half)
    cos, sin, (a, b) = jnp.cos(angles), jnp.sin(angles), jnp.split(h, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(h.dtype)


def normal_dense(
    width: int, style: Style, name: str | None, *, scale: float = 1.0, dtype: Any = jnp.float32
) -> nn.Dense:
    """A dense layer of weights N(0, (0.02 scale)^2), kept in float32, whose products are of a type."""
    start = nn.initializers.normal(0.02 * scale)
    return Dense(width, use_bias=style.use_bias, kernel_init=start, dtype=dtype, name=name)


def drop(h: Any, rate: float, *, active: bool) -> Any:
    """Dropout, where there is any; a new layer of the module that calls."""
    return nn.Dropout(rate)(h, deterministic=False) if rate and active else h


class Attention(nn.Module):
    """Self-attention of several heads.

    Attributes:
        num_heads: heads.
        style: `GPT2` or `MODERN`.
        length: the most positions there can be; those of the cache.
        scale: of the initial weights of the output.
        causal: whether a position attends only to itself and those before it.
        dtype: type of the products.
        mix: `attend`, or another form of it.
    """

    num_heads: int
    style: Style
    length: int
    scale: float = 1.0
    causal: bool = True
    dtype: Any = jnp.float32
    mix: Callable[..., Any] = attend

    @nn.compact
    def __call__(self, h: Tokens, position: Any = None, mask: Any = None) -> Tokens:
        """Maps `h [n, t, width]` to the same shape; with a position, `h [n, 1, width]` is what stands there."""
        n, num, width = h.shape
        dense = functools.partial(normal_dense, style=self.style, dtype=self.dtype)
        heads = dense(3 * width, name="in")(h).reshape(n, num, 3 * self.num_heads, -1)
        turned, value = jnp.split(heads, [2 * self.num_heads], axis=2)
        if self.style.turned:
            turned = rotary(turned, jnp.arange(num) if position is None else position[None])
        query, key = jnp.split(turned, 2, axis=2)
        if position is not None:
            key, value, mask = self._remember(key, value, position)
        causal = self.causal and position is None
        mixed = self.mix(query, key, value, mask=mask, is_causal=causal)
        return dense(width, name="out", scale=self.scale)(mixed.reshape(h.shape))

    def _remember(self, key: Heads, value: Heads, position: Any) -> tuple[Heads, Heads, Any]:
        """Keys and values of all positions, the new ones among them, and which of them there are.

        They are kept with the heads before the positions, `[n, heads, length, d]`, as the products of attention want
        them: the other way round, every step would begin with a transposed copy of the whole cache.
        """
        n, _, num_heads, features = key.shape
        both = []
        for name, new in (("key", key), ("value", value)):
            cache: Any = self.variable("cache", name, jnp.zeros, (n, num_heads, self.length, features), new.dtype)
            cache.value = jax.lax.dynamic_update_slice_in_dim(cache.value, new.swapaxes(1, 2), position, axis=2)
            both.append(cache.value.swapaxes(1, 2))
        return both[0], both[1], (jnp.arange(self.length) <= position)[None, None, None]


class FeedForward(nn.Module):
    """The perceptron of each position.

    Attributes:
        hidden: its hidden width; by default 4 times the width, or, gated, 8/3 times it rounded up to a multiple of 8.
        style: `GPT2` or `MODERN`.
        scale: of the initial weights of the output.
        dtype: type of the products.
    """

    hidden: int | None
    style: Style
    scale: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: Tokens) -> Tokens:
        """Maps `h [n, t, width]` to the same shape."""
        width, dense = h.shape[-1], functools.partial(normal_dense, style=self.style, dtype=self.dtype)
        hidden = self.hidden or (8 * -(-width // 3) if self.style.gated else 4 * width)
        if self.style.gated:
            gate, h = jnp.split(dense(2 * hidden, name="in")(h), 2, axis=-1)
            h = nn.silu(gate) * h
        else:
            h = nn.gelu(dense(hidden, name="in")(h))
        return dense(width, name="out", scale=self.scale)(h)


class Block(nn.Module):
    """(1): attention and a perceptron, each added to its input.

    Attributes:
        num_heads: heads of the attention.
        style: `GPT2` or `MODERN`.
        length: the most positions there can be.
        scale: of the initial weights of what is added.
        hidden: hidden width of the perceptron; see `FeedForward`.
        dropout: share of the added features that are dropped in training.
        causal: whether a position attends only to itself and those before it.
        dtype: type of the products.
        mix: `attend`, or another form of it.
    """

    num_heads: int
    style: Style
    length: int
    scale: float = 1.0
    hidden: int | None = None
    dropout: float = 0.0
    causal: bool = True
    dtype: Any = jnp.float32
    mix: Callable[..., Any] = attend

    @nn.compact
    def __call__(self, h: Tokens, position: Any = None, mask: Any = None) -> Tokens:
        """Maps `h [n, t, width]` to the same shape; see `Attention`."""
        attention = Attention(
            self.num_heads,
            self.style,
            self.length,
            self.scale,
            self.causal,
            self.dtype,
            self.mix,
            name="attention",
        )
        mixed = attention(self.style.norm(name="attention_norm")(h), position, mask)
        h = h + drop(mixed, self.dropout, active=self.has_rng("dropout"))
        feed_forward = FeedForward(self.hidden, self.style, self.scale, self.dtype, name="mlp")
        changed = feed_forward(self.style.norm(name="mlp_norm")(h))
        return h + drop(changed, self.dropout, active=self.has_rng("dropout"))
