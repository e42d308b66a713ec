r"""The diffusion transformer: patches of an image as tokens, told the noise level and the class by adaptive layer norm.

With tokens h, an embedding e of level and class, and LN without parameters:

    (1)  shift, scale, gate (twice) = W silu(e) + b,  both zero at the start
    (2)  h <- h + gate  Attention(LN(h) (1 + scale) + shift)
    (3)  h <- h + gate' MLP(LN(h) (1 + scale') + shift')

so that every block starts as the identity, and the last layer, zero too, as an output of zero.

Source: Scalable Diffusion Models with Transformers, https://arxiv.org/abs/2212.09748.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jaxgen.nets.attention import attend
from jaxgen.nets.blocks import Embedding, Image, embed
from jaxgen.nets.conv import depth_to_space
from jaxgen.nets.dense import Dense
from jaxgen.nets.time import time_features
from jaxgen.types import Cond

__all__ = ["DiT", "DiTBlock", "patchify", "positions"]

Tokens = Float[Array, "n _ _"]


def patchify(x: Image, patch: int) -> Image:
    """Blocks of `patch x patch` pixels become the channels of one, [n, h, w, c] -> [n, h / p, w / p, p p c].

    The inverse of `conv.depth_to_space`.

    Raises:
        ValueError: if the patches do not divide the sides.
    """
    n, h, w, c = x.shape
    if h % patch or w % patch:
        raise ValueError(f"patches of {patch} must divide the sides of the image, got {h} x {w}")
    x = x.reshape(n, h // patch, patch, w // patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // patch, w // patch, patch * patch * c)


def positions(height: int, width: int, num_features: int) -> Float[Array, "tokens features"]:
    """Sines and cosines of the column, then of the row, of each token, at frequencies 10000^(-4 i / num_features).

    Args:
        height: rows of tokens.
        width: columns of tokens.
        num_features: number of features, divisible by 4.

    Returns:
        `[height * width, num_features]`, row by row.
    """
    quarter = num_features // 4
    frequencies = 10_000.0 ** (-jnp.arange(quarter) / quarter)
    row, column = jnp.divmod(jnp.arange(height * width), width)
    angles = jnp.stack([column, row], 1)[:, :, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1).reshape(height * width, num_features)


def _dense(width: int, dtype: Any) -> nn.Dense:
    return Dense(width, kernel_init=nn.initializers.xavier_uniform(), dtype=dtype)


def _modulated_norm(h: Tokens, shift: Tokens, scale: Tokens, dtype: Any) -> Tokens:
    return nn.LayerNorm(use_bias=False, use_scale=False, dtype=dtype)(h) * (1 + scale) + shift


def _modulation(embedding: Embedding, num: int, width: int, dtype: Any) -> list[Any]:
    """(1): `num` arrays `[n, 1, width]`."""
    zeros = nn.initializers.zeros
    h = Dense(num * width, kernel_init=zeros, dtype=dtype, name="modulation")(nn.silu(embedding))
    return jnp.split(h[:, None], num, axis=-1)


class DiTBlock(nn.Module):
    """Attention and a perceptron of four times the width, each between (1), (2) and (3).

    Attributes:
        num_heads: heads of the attention.
        attention: `(query, key, value) -> mixed values`, each `[n, tokens, heads, width]`.
        dtype: type of the computation; parameters are float32.
    """

    num_heads: int
    attention: Callable[..., Any] = attend
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: Tokens, embedding: Embedding) -> tuple[Tokens, None]:
        """Maps tokens `h [n, tokens, width]` and an embedding `[n, width]` to tokens, and nothing, for `nn.scan`."""
        width = h.shape[-1]
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = _modulation(embedding, 6, width, self.dtype)
        h = h + gate * self._mix(_modulated_norm(h, shift, scale, self.dtype))
        hidden = _dense(4 * width, self.dtype)(_modulated_norm(h, mlp_shift, mlp_scale, self.dtype))
        return h + mlp_gate * _dense(width, self.dtype)(nn.gelu(hidden)), None

    def _mix(self, h: Tokens) -> Tokens:
        """Self-attention."""
        n, tokens, width = h.shape
        heads = _dense(3 * width, self.dtype)(h).reshape(n, tokens, 3 * self.num_heads, width // self.num_heads)
        query, key, value = jnp.split(heads, 3, axis=2)
        return _dense(width, self.dtype)(self.attention(query, key, value).reshape(h.shape))


class DiT(nn.Module):
    """A transformer from noisy images, or latent images, and their noise level to images of the same sides.

    The published sizes (depth, width, heads) are S (12, 384, 6), B (12, 768, 12), L (24, 1024, 16) and
    XL (28, 1152, 16). Blocks are one `nn.scan`, so the time to compile does not grow with the depth.

    Attributes:
        patch: side of a patch, in pixels; it divides the sides of the image.
        width: features of a token, a multiple of 4 and of `num_heads`.
        depth: number of blocks.
        num_heads: heads of the attention.
        num_classes: number of labels; 0 for none.
        out_channels: channels of the output; those of the input by default.
        dtype: type of the computation; parameters and output are float32.
        remat: recompute the inside of every block in the backward pass: less memory for one more forward pass.
        attention: `(query, key, value) -> mixed values`, each `[n, tokens, heads, width]`;
            `nets.attention.attend_fused` is the fused kernel of an NVIDIA GPU, in bfloat16.
        features: `(t, num) -> features [n, num]` of the noise level, of which there are 256.

    Raises:
        ValueError: if the width is no multiple of 4 and of the heads, or a size is below 1.

    Source: Scalable Diffusion Models with Transformers, https://arxiv.org/abs/2212.09748.
    """

    patch: int = 2
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    num_classes: int = 0
    out_channels: int | None = None
    dtype: Any = jnp.float32
    remat: bool = False
    attention: Callable[..., Any] = attend
    features: Callable[[Any, int], Any] = time_features

    def __post_init__(self) -> None:
        if min(self.patch, self.width, self.depth, self.num_heads) < 1:
            sizes = (self.patch, self.width, self.depth, self.num_heads)
            raise ValueError(f"patch, width, depth and num_heads must be at least 1, got {sizes}")
        if self.width % 4 or self.width % self.num_heads:
            raise ValueError(f"width must be a multiple of 4 and of {self.num_heads} heads, got {self.width}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Image, t: Num[Array, "n *k"], cond: Cond = None) -> Image:
        """Maps `x [n, h, w, c]`, levels `t [n]` or `[n, k]` and labels `cond [n]` to `[n, h, w, out_channels]`.

        Raises:
            ValueError: if the patches do not divide the sides, or there are classes and no label.
        """
        out_channels = self.out_channels or x.shape[-1]
        features = self.features(t, 256)
        embedding = embed(features, cond, width=self.width, num_classes=self.num_classes, dtype=self.dtype)
        patches = patchify(x, self.patch)
        n, height, width, _ = patches.shape
        h = _dense(self.width, self.dtype)(patches.reshape(n, height * width, -1))
        h = self._blocks(h + positions(height, width, self.width).astype(self.dtype), embedding)
        shift, scale = _modulation(embedding, 2, self.width, self.dtype)
        h = _modulated_norm(h, shift, scale, self.dtype).astype(jnp.float32)
        h = Dense(self.patch**2 * out_channels, kernel_init=nn.initializers.zeros, name="out")(h)
        return depth_to_space(h.reshape(n, height, width, -1), self.patch)

    def _blocks(self, h: Tokens, embedding: Embedding) -> Tokens:
        block = nn.remat(DiTBlock, prevent_cse=False) if self.remat else DiTBlock
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
        )
        return stack(self.num_heads, self.attention, self.dtype, name="blocks")(h, embedding)[0]
