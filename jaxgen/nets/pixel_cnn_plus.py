r"""PixelCNN++: whole pixels from those before, at several resolutions.

Two streams of features, u of the rows above and l of these and the pixels to the left, go down to half the sides, and
half of these, and up again. With ELU twice, e(h) = (elu(h), elu(-h)), a block is

    (1)  (a, b) = conv(e(conv(e(h)) + W e(aside))) + label,   h <- h + a sigmoid(b)

where conv covers two rows and, for u, the columns c - 1 .. c + 1, for l the columns c - 1 .. c. What is aside of l is
u; on the way up, also what the stream was at this place on the way down. Sides are halved by such convolutions of
stride 2, and doubled by one dense layer for each of the 2 x 2 pixels.

The pixel (r, c) at half the sides sees what is before (2r, 2c), so that nothing it gives to the pixels (2r, 2c) ..
(2r + 1, 2c + 1) is after them. To decode, it is computed at (2r, 2c) only, and u only where a row begins.

Source: PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications,
https://arxiv.org/abs/1701.05517.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jaxgen.nets.causal import Causal
from jaxgen.nets.causal_conv import CausalConv, Place
from jaxgen.nets.conv import depth_to_space
from jaxgen.nets.dense import Dense
from jaxgen.nets.labels import needed, one_hot
from jaxgen.nets.pixel_cnn import inputs, kept_unless, row_before, rows_above
from jaxgen.nets.transformer_blocks import drop

__all__ = ["PixelCNNPlus"]

Image = Float[Array, "n _ _ _"]
UP = (2, 3, 1)
LEFT = (2, 2, 0)


def _elu(h: Image) -> Image:
    return nn.elu(jnp.concatenate([h, -h], -1))


class _Block(nn.Module):
    """(1); `kernel` is `UP` or `LEFT`."""

    kernel: Any
    dropout: float

    @nn.compact
    def __call__(self, h: Image, aside: Any, labels: Any, place: Place | None) -> Image:
        features = h.shape[-1]
        inner = CausalConv(features, *self.kernel)(_elu(h), place)
        if aside is not None:
            inner = inner + Dense(features)(_elu(aside))
        inner = drop(_elu(inner), self.dropout, active=self.has_rng("dropout"))
        inner = CausalConv(2 * features, *self.kernel)(inner, place)
        if labels is not None:
            inner = inner + Dense(2 * features, use_bias=False)(labels)[:, None, None]
        a, b = jnp.split(inner, 2, axis=-1)
        return h + a * nn.sigmoid(b)


class _Stream(nn.Module):
    """One of the two streams at one resolution and those below it.

    Attributes:
        kernel: `UP` or `LEFT`.
        depth: blocks on the way down, and on the way up.
        num_scales: this resolution and those below.
        dropout: share of features that are dropped in training.
    """

    kernel: Any
    depth: int
    num_scales: int
    dropout: float

    @nn.compact
    def __call__(self, h: Image, others: Any, labels: Any, place: Place | None) -> tuple[Image, Any]:
        """The last features, and all those that the other stream sees, as a tree like `others` (None for u)."""
        block = functools.partial(_Block, self.kernel, self.dropout)
        down, up, below = (None,) * 3 if others is None else others
        seen_down, seen_up, seen_below = [], [], ()
        for i in range(self.depth):
            h = block(name=f"down_{i}")(h, None if down is None else down[i], labels, place)
            seen_down.append(h)
        if self.num_scales > 1:
            h, seen_below = self._below(h, below, labels, place)
            for i in range(self.depth):
                skipped = seen_down[-1 - i]
                aside = skipped if up is None else jnp.concatenate([skipped, up[i]], -1)
                h = block(name=f"up_{i}")(h, aside, labels, place)
                seen_up.append(h)
        return h, (seen_down, seen_up, seen_below)

    def _below(self, h: Image, others: Any, labels: Any, place: Place | None) -> tuple[Image, Any]:
        """The features of half the sides, at this resolution."""
        features = h.shape[-1]
        rows, columns, right = self.kernel
        half = CausalConv(features, rows, columns, right, stride=2, name="halve")(h, place)
        stream = _Stream(self.kernel, self.depth, self.num_scales - 1, self.dropout, name="below")
        double = Dense(4 * features, name="double")
        if place is None:
            h, seen = stream(half, others, labels, None)
            return depth_to_space(double(h)), seen
        if place.column is None:
            inner = Place(place.row // 2, None, place.width // 2)
            compute = lambda stream: stream(half, others, labels, inner)  # noqa: E731
            h, seen = kept_unless(place.row % 2 == 0, compute, self, stream, "kept")
            return _doubled(double(h), place), seen
        return _doubled(double(self._pixel_below(stream, half, others, labels, place)), place), ()

    def _pixel_below(self, stream: Any, half: Image, others: Any, labels: Any, place: Place) -> Image:
        """The pixel of half the sides, computed for the first of four and kept for a whole row."""
        inner = Place(place.row // 2, place.column // 2, place.width // 2)
        due = (place.row % 2 == 0) & (place.column % 2 == 0)
        h = kept_unless(due, lambda stream: stream(half, others, labels, inner)[0], self, stream, "kept")
        line: Any = self.variable("cache", "line", jnp.zeros, (h.shape[0], 1, inner.width, h.shape[-1]))
        before = jax.lax.dynamic_slice_in_dim(line.value, inner.column, 1, axis=2)
        h = jnp.where(place.row % 2 == 0, h, before)
        line.value = jax.lax.dynamic_update_slice_in_dim(line.value, h, inner.column, axis=2)
        return h


def _doubled(h: Image, place: Place) -> Image:
    """Of 4 f channels, those of the row and the column of a place at twice the sides."""
    h = jax.lax.dynamic_index_in_dim(h.reshape(*h.shape[:3], 2, 2, -1), place.row % 2, axis=3, keepdims=False)
    if place.column is None:
        return h.reshape(h.shape[0], 1, -1, h.shape[-1])
    return jax.lax.dynamic_index_in_dim(h, place.column % 2, axis=3, keepdims=False)


class _RowsAbove(nn.Module):
    """The stream u."""

    features: int
    depth: int
    num_scales: int
    dropout: float

    @nn.compact
    def __call__(self, v: Image, place: Place | None, labels: Any) -> Any:
        """Maps rows `[n, h, w, c]`, each the one above its place, to all features that l sees."""
        u = CausalConv(self.features, *UP)(v, place)
        return _Stream(UP, self.depth, self.num_scales, self.dropout)(u, None, labels, place)[1]


def _nothing(inputs: int, outputs: int) -> np.ndarray:
    return np.zeros((inputs, outputs), bool)


class PixelCNNPlus(Causal):
    """The network of PixelCNN++; elements are whole pixels.

    Attributes:
        shape: `(height, width, channels)`.
        num_levels: number of values of a channel.
        num_outputs: numbers of an output, `conditional.num_outputs`.
        features: channels of the layers.
        depth: blocks of each stream at each resolution, on the way down, and on the way up.
        num_scales: resolutions.
        num_classes: number of labels; 0 for none.
        dropout: share of features that are dropped in training.

    Raises:
        ValueError: if the sides cannot be halved as often, or a size is below 1.

    Source: PixelCNN++, https://arxiv.org/abs/1701.05517.
    """

    shape: Sequence[int]
    num_levels: int
    num_outputs: int
    features: int = 32
    depth: int = 2
    num_scales: int = 3
    num_classes: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        divisor = 2 ** (self.num_scales - 1)
        if len(self.shape) != 3 or min(self.shape) < 1 or self.shape[0] % divisor or self.shape[1] % divisor:
            raise ValueError(
                f"expected (height, width, channels), sides divisible by {divisor}, got {tuple(self.shape)}"
            )
        if min(self.num_outputs, self.features, self.depth, self.num_scales) < 1:
            sizes = (self.num_outputs, self.features, self.depth, self.num_scales)
            raise ValueError(f"num_outputs, features, depth and num_scales must be at least 1, got {sizes}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Num[Array, "n ..."], context: Any = None, position: Any = None) -> Any:
        """Outputs `[n, h, w, k]` of images `[n, h, w, c]`; or of one pixel, `[n, c] -> [n, k]`."""
        labels = None
        if self.num_classes:
            labels = one_hot(needed(context, self.num_classes), self.num_classes)
        at, known, place, before = inputs(self, x, position)
        stack = _RowsAbove(self.features, self.depth, self.num_scales, self.dropout, name="above")
        others = stack(row_before(known), None, labels) if at is None else rows_above(self, stack, at, labels)
        h = CausalConv(self.features, 2, 3, 1, centre=_nothing)(known, place, before)
        h, _ = _Stream(LEFT, self.depth, self.num_scales, self.dropout, name="left")(h, others, labels, place)
        output = Dense(self.num_outputs)(nn.elu(h))
        return output if at is None else output[:, 0, 0]
