r"""Winograd's 3x3 convolution for CPUs: 12 products for two neighbouring pixels, where their sums have 18.

In a row, two pixels of the result see four of the image, d_0 .. d_3, through three weights k_0, k_1, k_2:

    y_0 = m_0 + m_1 + m_2,   m_0 = (d_0 - d_2) k_0,   m_1 = (d_1 + d_2) (k_0 + k_1 + k_2) / 2,                   (1)
    y_1 = m_1 - m_2 - m_3,   m_3 = (d_1 - d_3) k_2,   m_2 = (d_2 - d_1) (k_0 - k_1 + k_2) / 2.

With a kernel of three rows and an image of pairs, the m are four convolutions by one column each. (1) is exact but for
rounding, a few times that of the plain sum, and so are its derivatives, which autodiff finds. The sums around the
products cost time that does not depend on the number of channels, so that it pays where there are many of them; for
gradients they are kept, which takes the memory of two images in place of one. Where it does not pay, and off the CPU,
whose libraries do the like by themselves, `quickest` is the plain convolution.

Source: Fast Algorithms for Convolutional Neural Networks, https://arxiv.org/abs/1509.09308, section 4.1: F(2, 3).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxgen.nets.convolution import convolve

__all__ = ["Conv", "by_pairs", "quickest"]

_AXES = ("NHWC", "HWIO", "NHWC")
_LEAST = 64
"""Channels of the image and of the result from which on (1) pays (measured in `benchmarks/README.md`)."""


def by_pairs(
    x: Float[Array, "n h w c"], kernel: Float[Array, "rows columns c d"], *, precision: Any = None
) -> Float[Array, "n h w d"]:
    """The convolution (cross-correlation) of an image with zeros around, by (1).

    Args:
        x: the image `[n, h, w, c]`; an odd width is filled up with zeros and cut off again.
        kernel: `[3, 3, c, d]`.
        precision: as `jax.lax.conv_general_dilated` takes it.

    Returns:
        `[n, h, w, d]`.

    Raises:
        ValueError: if the kernel is not 3x3.
    """
    if kernel.shape[:2] != (3, 3):
        raise ValueError(f"expected a kernel of 3x3, got {kernel.shape[0]}x{kernel.shape[1]}")
    n, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, 0), (0, w % 2), (0, 0))).reshape(n, h, -1, 2, c)

    factors = zip(_windows(x[:, :, :, 0], x[:, :, :, 1]), _columns(kernel), strict=True)
    conv = functools.partial(convolve, dimension_numbers=_AXES, precision=precision)
    m = [conv(pixels, column, (1, 1), ((1, 1), (0, 0))) for pixels, column in factors]
    y = jnp.stack([m[0] + m[1] + m[2], m[1] - m[2] - m[3]], axis=3)
    return y.reshape(n, h, -1, kernel.shape[-1])[:, :, :w]


def _windows(even: Any, odd: Any) -> list[Any]:
    """The factors of (1) of the image, whose pairs of pixels are (d_1, d_2): zeros lie beyond its ends."""
    before, after = (jnp.pad(x, ((0, 0), (0, 0), pad, (0, 0))) for x, pad in ((odd, (1, 0)), (even, (0, 1))))
    return [before[:, :, :-1] - odd, even + odd, odd - even, even - after[:, :, 1:]]


def _columns(kernel: Any) -> list[Any]:
    """The factors of (1) of the kernel."""
    first, second, third = jnp.split(kernel, 3, axis=1)
    return [first, (first + second + third) / 2, (first - second + third) / 2, third]


def quickest(x: Any, kernel: Any, strides: Sequence[int], padding: Any, **options: Any) -> Any:
    """`convolution.convolve`, by pairs where that is quicker; in the form in which `flax.linen.Conv` calls it.

    Args:
        x: image `[n, h, w, c]`.
        kernel: `[rows, columns, c / groups, d]`.
        strides: of the result.
        padding: as JAX takes it.
        **options: dilations, axes, groups and precision.

    Returns:
        The convolution.
    """

    def plain(x: Any, kernel: Any) -> Any:
        return convolve(x, kernel, strides, padding, **options)

    if not _pays(x, kernel, strides, padding, options):
        return plain(x, kernel)
    pairs = functools.partial(by_pairs, precision=options.get("precision"))
    return jax.lax.platform_dependent(x, kernel, cpu=pairs, default=plain)


def _pays(x: Any, kernel: Any, strides: Sequence[int], padding: Any, options: dict[str, Any]) -> bool:
    """Whether it is a convolution that `by_pairs` computes, of float32 and with many channels."""
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    return (
        kernel.shape[:-2] == (3, 3)
        and padding == "SAME"
        and all(one == 1 for one in (*strides, *dilations))
        and kernel.shape[2] == x.shape[-1]
        and min(kernel.shape[2:]) >= _LEAST
        and x.dtype == kernel.dtype == jnp.float32
    )


Conv = functools.partial(nn.Conv, conv_general_dilated=quickest)
"""`flax.linen.Conv` by `quickest`, with the same parameters."""
