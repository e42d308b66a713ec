r"""Convolutions of images that see only what comes before, for the whole image, for a row, or for one pixel.

Pixels come row by row. A kernel covers `rows` rows, the last of which is the row of the output, and `columns` columns,
of which `right` are right of it. Of the last row it may be cut after the pixel itself, and its connections from the
pixel to itself may be cut too, by groups of channels:

    (1)  y(r, c) = sum_ij K(i, j) x(r - rows + 1 + i, c - left + j),   left = columns - 1 - right

One pixel, or one row, of (1) needs the last `rows` rows of x only. They are kept in a ring: row r in place r mod rows.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxgen.nets.convolution import convolve

__all__ = ["CausalConv", "Place", "between_groups"]

Image = Float[Array, "n _ _ _"]


class Place(NamedTuple):
    """Where in an image a layer is called for.

    Attributes:
        row: the row.
        column: the column; None for the whole row.
        width: columns of the image, static.
    """

    row: Any
    column: Any
    width: int


def between_groups(inputs: int, outputs: int, num_groups: int, *, strict: bool) -> np.ndarray:
    """Which channels see which, `[inputs, outputs]`: those of later groups and, if not strict, of the same one.

    Both are divided into consecutive groups, one for each channel of the image (red, green, blue).
    """
    group = lambda size: np.arange(size) * num_groups // size  # noqa: E731
    a, b = group(inputs)[:, None], group(outputs)[None]
    return a < b if strict else a <= b


class CausalConv(nn.Module):
    """The convolution (1).

    Attributes:
        features: channels of the output.
        rows: rows of the kernel.
        columns: columns of the kernel.
        right: columns of the kernel right of the output.
        centre: `(inputs, outputs) -> [inputs, outputs]`, which connections there are from a pixel to itself; with it
            those to the right of the pixel in its own row are cut. None cuts nothing.
        stride: 2 computes every second row and column only.
        use_bias: add a bias.
    """

    features: int
    rows: int
    columns: int
    right: int = 0
    centre: Callable[[int, int], Any] | None = None
    stride: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Image, place: Place | None = None, given_at: Place | None = None) -> Image:
        """Maps `x [n, h, w, c]` to the same sides; or, at a place, a row `[n, 1, w, c]` or a pixel `[n, 1, 1, c]`.

        The input x may be that of another place, `given_at`, the one before. With a stride the sides are halved, and
        the place is that of the input; its row and column are even where the output is of use.
        """
        mask, left = self._mask(x.shape[-1]), self.columns - 1 - self.right
        fan_in = math.ceil(mask.sum() / self.features)
        init = nn.initializers.normal(1 / math.sqrt(max(fan_in, 1)))
        kernel = self.param("kernel", init, mask.shape) * mask
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else 0.0
        if place is None:
            return _convolve(x, kernel, ((self.rows - 1, 0), (left, self.right)), self.stride) + bias
        if mask.shape[:2] == (1, 1):
            return jnp.einsum("n...c,co->n...o", x, kernel[0, 0]) + bias
        ring = self._remember(x, place if given_at is None else given_at, left)
        order = (place.row + 1 + jnp.arange(self.rows)) % self.rows
        if place.column is None:
            return _convolve(ring[:, order], kernel, ((0, 0), (0, 0)), self.stride) + bias
        patch = jax.lax.dynamic_slice_in_dim(ring, place.column, self.columns, axis=2)[:, order]
        return jnp.einsum("nijc,ijco->no", patch, kernel)[:, None, None] + bias

    def _mask(self, inputs: int) -> np.ndarray:
        mask = np.ones((self.rows, self.columns, inputs, self.features), np.float32)
        if self.centre is not None:
            here = self.columns - 1 - self.right
            mask[-1, here + 1 :] = 0
            mask[-1, here] = self.centre(inputs, self.features)
        return mask

    def _remember(self, x: Image, place: Place, left: int) -> Image:
        """The ring of the last rows, with the new pixel or row in it; columns off the border are zero."""
        shape = (x.shape[0], self.rows, place.width + left + self.right, x.shape[-1])
        ring: Any = self.variable("cache", "rows", jnp.zeros, shape)
        column = 0 if place.column is None else place.column
        ring.value = jax.lax.dynamic_update_slice(ring.value, x, (0, place.row % self.rows, left + column, 0))
        return ring.value


def _convolve(x: Image, kernel: Any, padding: Any, stride: int) -> Image:
    return convolve(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
