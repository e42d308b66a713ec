"""The parts of a U-Net: residual and attention blocks, and the style in which they are built.

Sources: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239, appendix B (DDPM); Score-Based
Generative Modeling through Stochastic Differential Equations, https://arxiv.org/abs/2011.13456, appendix H (DDPM++ and
NCSN++); Diffusion Models Beat GANs on Image Synthesis, https://arxiv.org/abs/2105.05233, section 3 (ADM).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxgen.nets.attention import attend
from jaxgen.nets.dense import Dense
from jaxgen.nets.labels import known_or_too_large, needed
from jaxgen.nets.norm import GroupNorm
from jaxgen.nets.time import fourier_features, time_features
from jaxgen.nets.upsample import conv_of_doubled, doubled
from jaxgen.nets.winograd import Conv
from jaxgen.types import Cond

__all__ = [
    "ADM",
    "DDPM",
    "DDPM_PLUS",
    "NCSN_PLUS",
    "AttentionBlock",
    "ResidualBlock",
    "Style",
    "blur",
    "conv_of_resized",
    "embed",
    "halved",
    "norm",
    "resize",
]

Image = Float[Array, "n _ _ _"]
Embedding = Float[Array, "n _"]
Size = tuple[int, int]


def powers_of_two(channels: int) -> int:
    """Groups of a normalisation: up to 32, a power of two, as many as leave each a multiple of 4 channels."""
    return math.gcd(32, channels // 4)


def as_many_as_fit(channels: int) -> int:
    """Groups of a normalisation: up to 32, of at least 4 channels."""
    return max(groups for groups in range(1, 33) if channels % groups == 0 and 4 * groups <= channels)


class Style(NamedTuple):
    """In what the published U-Nets differ, but for their sizes.

    Attributes:
        scale_shift: the embedding scales and shifts the normalised channels of a block; otherwise it shifts the others.
        skip_scale: factor of every sum of a branch and what is carried around it.
        resample_blocks: residual blocks halve and double the sides; otherwise single convolutions do.
        project_resampled: what is carried around such a block goes through a 1x1 convolution.
        smooth: sides are halved and doubled with the filter (1, 3, 3, 1); otherwise by means and copies of pixels.
        residual_input: the image, halved along with the levels through this filter and convolutions, is added to each.
        attention_up_once: attention follows only the last block of a level on the way up.
        head_width: channels of one attention head; `None` for a single head.
        features: `(t, num) -> features [n, num]` of the noise level.
        feature_multiple: their number, in units of the channels of the first level.
        num_groups: `channels -> groups` of the group norm.
    """

    scale_shift: bool = False
    skip_scale: float = 1.0
    resample_blocks: bool = False
    project_resampled: bool = False
    smooth: bool = False
    residual_input: bool = False
    attention_up_once: bool = False
    head_width: int | None = 64
    features: Callable[[Any, int], Any] = time_features
    feature_multiple: int = 1
    num_groups: Callable[[int], int] = powers_of_two


DDPM = Style()
"""Ho, Jain and Abbeel, with heads of 64 channels where they have one."""

ADM = Style(scale_shift=True, resample_blocks=True, num_groups=as_many_as_fit)
"""Dhariwal and Nichol."""

DDPM_PLUS = Style(
    skip_scale=math.sqrt(0.5),
    resample_blocks=True,
    project_resampled=True,
    attention_up_once=True,
    head_width=None,
    num_groups=as_many_as_fit,
)
"""Song and others, for variance-preserving paths."""

NCSN_PLUS = DDPM_PLUS._replace(smooth=True, residual_input=True, features=fourier_features, feature_multiple=2)
"""Song and others, for variance-exploding paths."""

_TAPS = (0.125, 0.375, 0.375, 0.125)


def norm(x: Image, style: Style, dtype: Any) -> Image:
    """Group norm, statistics in float32; a new layer of the module that calls."""
    return GroupNorm(style.num_groups(x.shape[-1]), dtype=dtype)(x)


def embed(features: Embedding, cond: Cond, *, width: int, num_classes: int, dtype: Any) -> Embedding:
    """Embedding of features of the noise level and, added, of the class; new layers of the module that calls.

    Labels out of range, which cannot raise where they are traced, give NaN.

    Raises:
        ValueError: if there are classes and no label.
    """
    h = Dense(width, dtype=dtype)(features)
    h = Dense(width, dtype=dtype)(nn.silu(h))
    if num_classes == 0:
        return h
    return h + nn.Embed(num_classes, width, dtype=dtype)(known_or_too_large(needed(cond, num_classes), num_classes))


def halved(x: Image) -> Size:
    """Half of the height and the width, rounded up."""
    return -(-x.shape[1] // 2), -(-x.shape[2] // 2)


def _correlate(x: Image, num: Size, *, before: int, stride: int) -> Image:
    """`num` values of the filter (1, 3, 3, 1) / 8 along either side, the first from `before` zeros on."""
    for axis, count in zip((1, 2), num, strict=True):
        after = stride * (count - 1) + len(_TAPS) - before - x.shape[axis]
        widths = [(before, after) if i == axis else (0, 0) for i in range(x.ndim)]
        padded, end = jnp.pad(x, widths), stride * (count - 1) + 1
        parts = [jax.lax.slice_in_dim(padded, k, k + end, stride, axis) for k in range(len(_TAPS))]
        filtered: Any = sum(weight * part for weight, part in zip(_TAPS, parts, strict=True))
        x = filtered
    return x


def blur(x: Image) -> Image:
    """The filter (1, 3, 3, 1) / 8 at every pixel and a border of zeros, for a 3x3 convolution of stride 2 to halve."""
    height, width = halved(x)
    return _correlate(x, (2 * height + 1, 2 * width + 1), before=2, stride=1)


def resize(x: Image, size: Size, *, smooth: bool) -> Image:
    """Halves the sides to `size` or doubles them to it (or to one pixel less).

    Smooth, the filter (1, 3, 3, 1) / 8 is applied at every other pixel, or twice to pixels with zeros in between, with
    zeros beyond the border; otherwise halves are means of up to 2x2 pixels and doubles are copies.
    """
    if size == halved(x):
        if smooth:
            return _correlate(x, size, before=1, stride=2)
        return nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)
    if not smooth:
        return doubled(x)[:, : size[0], : size[1]]
    n, height, width, channels = x.shape
    spread = jnp.zeros((n, height, 2, width, 2, channels), x.dtype).at[:, :, 0, :, 0].set(4 * x)
    return _correlate(spread.reshape(n, 2 * height, 2 * width, channels), size, before=2, stride=1)


def conv_of_resized(x: Image, channels: int, size: Size | None, *, smooth: bool, dtype: Any) -> Image:
    """The 3x3 convolution of an image resized to `size`, if there is one; part of the module that calls it."""
    height, width = x.shape[1:3]
    if size == (2 * height, 2 * width) and not smooth:
        return nn.Conv(channels, (3, 3), dtype=dtype, conv_general_dilated=conv_of_doubled)(x)
    return Conv(channels, (3, 3), dtype=dtype)(x if size is None else resize(x, size, smooth=smooth))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input is carried; the second starts at zero.

    Attributes:
        channels: number of output channels.
        style: how it is built.
        size: height and width of the output, if the block halves or doubles them.
        dtype: type of the computation; parameters are float32.
    """

    channels: int
    style: Style = DDPM
    size: Size | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, embedding: Embedding) -> Image:
        """Maps `x [n, h, w, c]` and an embedding `[n, features]` to `[n, h, w, channels]`, or to the other size."""
        scale_shift, project = self.style.scale_shift, self.size is not None and self.style.project_resampled
        h, smooth = nn.silu(norm(x, self.style, self.dtype)), self.style.smooth
        h = conv_of_resized(h, self.channels, self.size, smooth=smooth, dtype=self.dtype)
        change = Dense((1 + scale_shift) * self.channels, dtype=self.dtype)(nn.silu(embedding))[:, None, None]
        if scale_shift:
            scale, shift = jnp.split(change, 2, axis=-1)
            h = norm(h, self.style, self.dtype) * (1 + scale) + shift
        else:
            h = norm(h + change, self.style, self.dtype)
        h = Conv(self.channels, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype)(nn.silu(h))
        x = x if self.size is None else resize(x, self.size, smooth=smooth)
        if x.shape[-1] != self.channels or project:
            x = Dense(self.channels, dtype=self.dtype)(x)
        return self.style.skip_scale * (x + h)


class AttentionBlock(nn.Module):
    """Self-attention over all positions, carried around; its output starts at zero.

    Attributes:
        style: how it is built; at least one head.
        attention: `(query, key, value) -> mixed values`, each `[n, positions, heads, width]`.
        dtype: type of the computation; parameters are float32.
    """

    style: Style = DDPM
    attention: Callable[..., Any] = attend
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        """Maps `x [n, h, w, c]` to the same shape."""
        n, height, width, channels = x.shape
        heads = max(1, channels // (self.style.head_width or channels))
        h = Dense(3 * channels, dtype=self.dtype)(norm(x, self.style, self.dtype))
        query, key, value = jnp.split(h.reshape(n, height * width, 3 * heads, channels // heads), 3, axis=2)
        h = self.attention(query, key, value).reshape(x.shape)
        h = Dense(channels, kernel_init=nn.initializers.zeros, dtype=self.dtype)(h)
        return self.style.skip_scale * (x + h)
