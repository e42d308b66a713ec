r"""PixelRNN: every channel of every pixel from those before it, by recurrent layers over the image.

Features come in one group for each channel of the image, as in `pixel_cnn`, and the first layer is its masked
convolution (mask A). The others are layers of long short-term memory, with gates from the input i (mask B) and the
state s before,

    (1)  (f, g, o, u) = K_is i + K_ss s + b,   c = sigmoid(f) c' + sigmoid(g) tanh(u),   h = sigmoid(o) tanh(c)

    row LSTM:       i = the pixel and its left neighbour, s = h of the three pixels above, c' = c of the pixel above
    diagonal LSTM:  i = the pixel, s = h of the pixel above and of the left neighbour, c' = c of the left neighbour

The row LSTM misses a wedge of pixels on either side above. The diagonal one also runs from the right, whose result is
moved down by one row before it is added, and so misses only the last channel of the last pixel of the row above, which
no feature of that row has seen, where the first kernel does not reach it either. Each layer is added to its input.

Full passes are a scan over rows, or over diagonals, which a skewed image has as its columns. To decode, rows of h and c
are kept, and the run from the right is made when a row begins, over the row before.

Source: Pixel Recurrent Neural Networks, https://arxiv.org/abs/1601.06759, sections 3.1 to 3.3.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jaxgen.nets.causal import Causal
from jaxgen.nets.causal_conv import CausalConv, Place, between_groups
from jaxgen.nets.pixel_cnn import Masked, by_channel, check, inputs, kept_unless, label_bias, row_before

__all__ = ["DiagonalLSTM", "PixelRNN", "RowLSTM"]

Image = Float[Array, "n _ _ _"]
Line = Float[Array, "n _ _"]


def _cell(gates: Any, c: Any, num_groups: int) -> tuple[Any, Any]:
    """(1) for gates `[..., 4 f]`, each group with its own four: `(h, c)`, `[..., f]` each."""
    parts = gates.reshape(*gates.shape[:-1], num_groups, 4, -1)
    forget, update, out, new = (parts[..., i, :].reshape(c.shape) for i in range(4))
    c = nn.sigmoid(forget) * c + nn.sigmoid(update) * jnp.tanh(new)
    return nn.sigmoid(out) * jnp.tanh(c), c


def _kept_row(module: nn.Module, name: str, row: Any, shape: Sequence[int]) -> tuple[Any, Any, Any]:
    """The variable that keeps two rows `[2, n, w, f]`, and of them the row and the one before it."""
    kept: Any = module.variable("cache", name, jnp.zeros, (2, *shape))
    return kept, kept.value[row % 2], kept.value[(row + 1) % 2]


class RowLSTM(nn.Module):
    """(1) from row to row.

    Attributes:
        num_groups: groups of channels.
    """

    num_groups: int

    @nn.compact
    def __call__(self, x: Image, place: Place | None = None) -> Image:
        """Maps `x [n, h, w, f]` to the same shape; or, at a place, a pixel `[n, 1, 1, f]`."""
        features = x.shape[-1]
        centre = functools.partial(between_groups, num_groups=self.num_groups, strict=False)
        inputs = CausalConv(4 * features, 1, 2, centre=centre, name="input")(x, place)
        kernel = self.param("state", nn.initializers.lecun_normal(in_axis=(0, 1)), (3, features, 4 * features))
        if place is None:
            start = (jnp.zeros_like(x[:, 0]), jnp.zeros_like(x[:, 0]))
            advance = functools.partial(self._advance, kernel)
            return jnp.moveaxis(jax.lax.scan(advance, start, jnp.moveaxis(inputs, 1, 0))[1], 0, 1)
        return self._pixel(inputs, kernel, place)

    def _advance(self, kernel: Any, state: Any, inputs: Line) -> tuple[Any, Line]:
        """One row."""
        h, c = state
        wide = jnp.pad(h, ((0, 0), (1, 1), (0, 0)))
        gates = inputs + sum(wide[:, i : i + h.shape[1]] @ kernel[i] for i in range(3))
        h, c = _cell(gates, c, self.num_groups)
        return (h, c), h

    def _pixel(self, inputs: Image, kernel: Any, place: Place) -> Image:
        n, features = inputs.shape[0], inputs.shape[-1] // 4
        kept_h, _, above_h = _kept_row(self, "h", place.row, (n, place.width + 2, features))
        kept_c, _, above_c = _kept_row(self, "c", place.row, (n, place.width, features))
        three = jax.lax.dynamic_slice_in_dim(above_h, place.column, 3, axis=1)
        gates = inputs[:, 0, 0] + jnp.einsum("nif,ifg->ng", three, kernel)
        h, c = _cell(
            gates, jax.lax.dynamic_index_in_dim(above_c, place.column, axis=1, keepdims=False), self.num_groups
        )
        put = lambda kept, new, column: jax.lax.dynamic_update_slice(  # noqa: E731
            kept.value, new[None, :, None], (place.row % 2, 0, column, 0)
        )
        kept_h.value, kept_c.value = put(kept_h, h, place.column + 1), put(kept_c, c, place.column)
        return h[:, None, None]


class _Diagonal(nn.Module):
    """(1) along diagonals, from the left."""

    num_groups: int

    @nn.compact
    def __call__(self, x: Image, place: Place | None = None) -> Image:
        """Maps `x [n, h, w, f]` to the same shape; or, at a place, a pixel `[n, 1, 1, f]` or a row `[n, 1, w, f]`."""
        features = x.shape[-1]
        centre = functools.partial(between_groups, num_groups=self.num_groups, strict=False)
        inputs = CausalConv(4 * features, 1, 1, centre=centre, name="input")(x)
        kernel = self.param("state", nn.initializers.lecun_normal(in_axis=(0, 1)), (2, features, 4 * features))
        if place is None:
            return self._whole(inputs, kernel)
        shape = (x.shape[0], place.width, features)
        kept_h, row_h, above_h = _kept_row(self, "h", place.row, shape)
        if place.column is None:
            h = self._row(inputs[:, 0], above_h, kernel)
            kept_h.value = jax.lax.dynamic_update_slice_in_dim(kept_h.value, h[None], place.row % 2, axis=0)
            return h[:, None]
        kept_c, row_c, _ = _kept_row(self, "c", place.row, shape)
        at = lambda line, column: jax.lax.dynamic_index_in_dim(line, column, axis=1, keepdims=False)  # noqa: E731
        left = lambda line: jnp.where(place.column == 0, 0.0, at(line, jnp.maximum(place.column - 1, 0)))  # noqa: E731
        gates = inputs[:, 0, 0] + at(above_h, place.column) @ kernel[0] + left(row_h) @ kernel[1]
        h, c = _cell(gates, left(row_c), self.num_groups)
        for kept, new in ((kept_h, h), (kept_c, c)):
            where = (place.row % 2, 0, place.column, 0)
            kept.value = jax.lax.dynamic_update_slice(kept.value, new[None, :, None], where)
        return h[:, None, None]

    def _row(self, inputs: Line, above: Line, kernel: Any) -> Line:
        """One row, pixel by pixel."""
        zeros = jnp.zeros_like(above[:, 0])

        def advance(state: Any, gates: Any) -> tuple[Any, Any]:
            h, c = _cell(gates + state[0] @ kernel[1], state[1], self.num_groups)
            return (h, c), h

        gates = inputs + above @ kernel[0]
        return jnp.moveaxis(jax.lax.scan(advance, (zeros, zeros), jnp.moveaxis(gates, 1, 0))[1], 0, 1)

    def _whole(self, inputs: Image, kernel: Any) -> Image:
        """All diagonals, one after the other: the columns of the image skewed by one pixel a row."""
        n, height, width, _ = inputs.shape
        row, column = jnp.arange(height)[:, None], jnp.arange(width)[None]
        skewed = jnp.zeros((n, height, width + height - 1, inputs.shape[-1])).at[:, row, row + column].set(inputs)
        diagonal = jnp.arange(width + height - 1)
        inside = (diagonal[:, None] >= row.T) & (diagonal[:, None] < row.T + width)
        zeros = jnp.zeros((n, height, inputs.shape[-1] // 4))

        def advance(state: Any, xs: Any) -> tuple[Any, Any]:
            h, c = state
            gates = xs[0] + jnp.pad(h[:, :-1], ((0, 0), (1, 0), (0, 0))) @ kernel[0] + h @ kernel[1]
            h, c = (jnp.where(xs[1][None, :, None], new, 0.0) for new in _cell(gates, c, self.num_groups))
            return (h, c), h

        h = jax.lax.scan(advance, (zeros, zeros), (jnp.moveaxis(skewed, 2, 0), inside))[1]
        return jnp.moveaxis(h, 0, 2)[:, row, row + column]


class DiagonalLSTM(nn.Module):
    """(1) along diagonals, from the left and, one row above, from the right.

    Attributes:
        num_groups: groups of channels.
    """

    num_groups: int

    @nn.compact
    def __call__(self, x: Image, place: Place | None = None, *, begins: Any = None) -> Image:
        """Maps `x [n, h, w, f]` to the same shape; or, at a place, a pixel `[n, 1, 1, f]`.

        Of a place, `begins` says whether its row begins there.
        """
        left, right = _Diagonal(self.num_groups, name="left"), _Diagonal(self.num_groups, name="right")
        if place is None:
            return left(x) + row_before(right(x[:, :, ::-1])[:, :, ::-1])
        line: Any = self.variable("cache", "line", jnp.zeros, (x.shape[0], 1, place.width, x.shape[-1]))
        row = Place(place.row - 1, None, place.width)
        compute = lambda right: right(line.value[:, :, ::-1], row)  # noqa: E731
        from_right = kept_unless(begins & (place.row > 0), compute, self, right, "from_right")[:, :, ::-1]
        line.value = jax.lax.dynamic_update_slice_in_dim(line.value, x, place.column, axis=2)
        return left(x, place) + jax.lax.dynamic_slice_in_dim(from_right, place.column, 1, axis=2)


class PixelRNN(Causal):
    """The pixel recurrent network; elements are channels of pixels.

    Attributes:
        shape: `(height, width, channels)`.
        num_levels: number of values of a channel.
        features: channels of the layers, a multiple of those of the image.
        depth: number of recurrent layers.
        side: of the kernel of the first layer, odd.
        num_classes: number of labels; 0 for none.
        diagonal: diagonal layers in both directions; otherwise row layers.

    Raises:
        ValueError: if the shape has not three sides, the features are no multiple of the channels, or the side is even.

    Source: Pixel Recurrent Neural Networks, https://arxiv.org/abs/1601.06759.
    """

    shape: Sequence[int]
    num_levels: int
    features: int = 64
    depth: int = 3
    side: int = 7
    num_classes: int = 0
    diagonal: bool = True

    def __post_init__(self) -> None:
        check(self.shape, self.features, self.side)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Num[Array, "n ..."], context: Any = None, position: Any = None) -> Any:
        """Logits `[n, h, w, c, levels]` of images `[n, h, w, c]`; or of one channel, `[n] -> [n, levels]`."""
        conv, half, groups = Masked(self.shape[2]), self.side // 2, self.shape[2]
        at, known, place, before = inputs(self, x, position)
        h = conv(self.features, half + 1, self.side, right=half, strict=True)(known, place, before)
        h = h + label_bias(context, self.num_classes, x.shape[0], self.features, "label")
        for i in range(self.depth):
            if self.diagonal:
                begins = None if at is None else (at.place.column == 0) & (at.channel == 0)
                h = h + DiagonalLSTM(groups, name=f"layer_{i}")(h, place, begins=begins)
            else:
                h = h + RowLSTM(groups, name=f"layer_{i}")(h, place)
        h = conv(self.features, 1, 1)(nn.relu(h), place)
        return by_channel(conv(groups * self.num_levels, 1, 1)(nn.relu(h), place), groups, at)
