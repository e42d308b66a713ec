"""The U-Net of diffusion models: residual blocks, group norm, self-attention, embeddings of noise level and class.

Sources: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239, appendix B (its shape and its
parameter count); Diffusion Models Beat GANs, https://arxiv.org/abs/2105.05233 (class embedding added to that of time).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jaxgen.nets.time import time_features
from jaxgen.types import Cond

__all__ = ["UNet"]

Image = Float[Array, "n _ _ _"]


def _norm(x: Image, dtype: Any) -> Image:
    """Group norm of up to 32 groups (a power of two) of at least 4 channels, statistics in float32."""
    return nn.GroupNorm(num_groups=math.gcd(32, x.shape[-1] // 4), dtype=dtype)(x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input is carried; the second starts at zero.

    Attributes:
        channels: number of output channels.
        dtype: type of the computation; parameters are float32.
    """

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, embedding: Float[Array, "n features"]) -> Image:
        """Maps `x [n, h, w, c]` and an embedding `[n, features]` to `[n, h, w, channels]`."""
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(nn.silu(_norm(x, self.dtype)))
        h += nn.Dense(self.channels, dtype=self.dtype)(nn.silu(embedding))[:, None, None]
        h = nn.silu(_norm(h, self.dtype))
        h = nn.Conv(self.channels, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype)(h)
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, dtype=self.dtype)(x)
        return x + h


class AttentionBlock(nn.Module):
    """Self-attention over all positions, carried around; its output starts at zero.

    Attributes:
        head_width: channels of one head; at least one head.
        dtype: type of the computation; parameters are float32.
    """

    head_width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps `x [n, h, w, c]` to the same shape."""
        n, height, width, channels = x.shape
        heads = max(1, channels // self.head_width)
        h = nn.Dense(3 * channels, dtype=self.dtype)(_norm(x, self.dtype))
        query, key, value = jnp.split(h.reshape(n, height * width, 3 * heads, channels // heads), 3, axis=2)
        h = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        return x + nn.Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype)(h)


class UNet(nn.Module):
    """A network from noisy images and their noise level to images of the same height and width.

    Level i works at 1/2^i of the resolution (rounded up, so that any size will do) with `channels * multipliers[i]`
    channels.

    Attributes:
        channels: width of the first level, a multiple of 4.
        multipliers: width of each level in units of `channels`.
        num_blocks: residual blocks per level on the way down; one more on the way up.
        attention_at: levels with self-attention, besides the middle.
        num_classes: number of labels; 0 for none.
        out_channels: channels of the output; those of the input by default.
        dtype: type of the computation; parameters and output are float32.
    """

    channels: int = 32
    multipliers: Sequence[int] = (1, 2, 2)
    num_blocks: int = 1
    attention_at: Sequence[int] = ()
    num_classes: int = 0
    out_channels: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, t: Num[Array, "n *k"], cond: Cond = None) -> Image:
        """Maps `x [n, h, w, c]`, levels `t [n]` or `[n, k]` and labels `cond [n]` to `[n, h, w, out_channels]`."""
        out_channels = self.out_channels or x.shape[-1]
        embedding = self._embed(t, cond)
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(x)
        skips = [h]
        for level in range(len(self.multipliers)):
            if level > 0:
                h = nn.Conv(h.shape[-1], (3, 3), strides=2, dtype=self.dtype)(h)
                skips.append(h)
            for _ in range(self.num_blocks):
                h = self._block(h, embedding, level)
                skips.append(h)
        h = ResidualBlock(h.shape[-1], self.dtype)(h, embedding)
        h = AttentionBlock(dtype=self.dtype)(h)
        h = ResidualBlock(h.shape[-1], self.dtype)(h, embedding)
        for level in reversed(range(len(self.multipliers))):
            for _ in range(self.num_blocks + 1):
                h = self._block(jnp.concatenate([h, skips.pop()], axis=-1), embedding, level)
            if level > 0:
                h = nn.Conv(h.shape[-1], (3, 3), dtype=self.dtype)(_double(h, skips[-1].shape))
        h = nn.silu(_norm(h, self.dtype))
        h = nn.Conv(out_channels, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(h)
        return h.astype(jnp.float32)

    def _embed(self, t: Num[Array, "n *k"], cond: Cond) -> Float[Array, "n features"]:
        """Embedding of the noise level, and of the class if there are classes."""
        width = 4 * self.channels
        h = nn.Dense(width, dtype=self.dtype)(time_features(t, self.channels))
        h = nn.Dense(width, dtype=self.dtype)(nn.silu(h))
        if self.num_classes == 0:
            return h
        if cond is None:
            raise ValueError(f"a network of {self.num_classes} classes needs a label for every example, got cond=None")
        return h + nn.Embed(self.num_classes, width, dtype=self.dtype)(cond)

    def _block(self, x: Image, embedding: Float[Array, "n features"], level: int) -> Image:
        h = ResidualBlock(self.channels * self.multipliers[level], self.dtype)(x, embedding)
        return AttentionBlock(dtype=self.dtype)(h) if level in self.attention_at else h


def _double(x: Image, shape: tuple[int, ...]) -> Image:
    """Repeats every pixel twice in both directions and crops to the height and width of `shape`."""
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, : shape[1], : shape[2]]
