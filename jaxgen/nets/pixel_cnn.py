r"""PixelCNN and gated PixelCNN: every channel of every pixel from those before it, by masked convolutions.

Features are divided into one group for each channel of the image. What is left of a kernel are the rows above, the
pixels to the left, and from the pixel to itself connections to later groups only in the first layer (mask A), and to
the group itself too in the others (mask B).

PixelCNN has one such kernel of k x k for all (and so does not see a wedge of pixels to the right above). The gated one
has two stacks, v of the rows above, whole, and h of the row itself, which sees v:

    (1)  v <- gate(conv(v)),   h <- h + W gate(conv(h) + W' conv(v)),   gate(a, b) = tanh(a) sigmoid(b)

To decode, h is computed pixel by pixel, and v row by row, when a row begins; both keep the last rows of what they see.

Sources: Pixel Recurrent Neural Networks, https://arxiv.org/abs/1601.06759; Conditional Image Generation with PixelCNN
Decoders, https://arxiv.org/abs/1606.05328.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jaxgen.nets.causal import Causal, labelled
from jaxgen.nets.causal_conv import CausalConv, Place, between_groups
from jaxgen.nets.dense import Dense

__all__ = [
    "GatedPixelCNN",
    "Masked",
    "Pixel",
    "PixelCNN",
    "by_channel",
    "check",
    "inputs",
    "kept_unless",
    "label_bias",
    "row_before",
    "rows_above",
    "scaled",
]

Image = Float[Array, "n _ _ _"]


def scaled(x: Num[Array, "..."], num_levels: int) -> Float[Array, "..."]:
    """Levels 0 .. L - 1 as reals in [-1, 1]."""
    return 2 * x.astype(jnp.float32) / (num_levels - 1) - 1


def label_bias(context: Any, num_classes: int, num: int, features: int, name: str) -> Any:
    """Numbers `[n, 1, 1, features]` of the label; zero without classes. A layer of the module that calls."""
    if num_classes == 0:
        return jnp.zeros((num, 1, 1, features))
    return nn.Embed(num_classes, features, name=name)(labelled(context, num_classes, num))[:, None, None]


class Pixel(NamedTuple):
    """What is known at a position, when one element is asked for.

    Attributes:
        place: of the pixel.
        channel: of the pixel, the channels before which are known.
        before: place of the element before.
        value: the pixel at `before`, `[n, 1, 1, c]`; its channels that are not known yet are of no meaning.
    """

    place: Place
    channel: Any
    before: Place
    value: Any


def at_pixel(module: nn.Module, previous: Any, position: Any, shape: Sequence[int], num_levels: int) -> Pixel:
    """Where a position is, and what was there before; the module that calls keeps the current pixel.

    Args:
        module: the module that calls.
        previous: the element before the position, `[n]` (one channel) or `[n, c]` (a whole pixel).
        position: of a channel, or of a pixel.
        shape: `(height, width, channels)`.
        num_levels: number of values of a channel.
    """
    width, channels = shape[1], shape[2]
    per_pixel = channels if previous.ndim == 1 else 1
    (index, channel), (index_before, channel_before) = (jnp.divmod(i, per_pixel) for i in (position, position - 1))
    place, before = (Place(*jnp.divmod(i, width), width) for i in (index, index_before))
    known: Any = module.variable("cache", "pixel", jnp.zeros, (previous.shape[0], 1, 1, channels))
    new = jnp.where(position == 0, 0.0, scaled(previous, num_levels)).reshape(previous.shape[0], 1, 1, -1)
    known.value = jax.lax.dynamic_update_slice(known.value, new, (0, 0, 0, channel_before))
    return Pixel(place, channel, before, known.value)


def inputs(module: Any, x: Any, position: Any) -> tuple[Pixel | None, Any, Any, Any]:
    """What a network begins with: the pixel where it is, if it is at one, and what is known, its place, and before it.

    Args:
        module: the module that calls, with a `shape` and `num_levels`.
        x: images `[n, h, w, c]`; or the element before the position.
        position: of a channel, or of a pixel; `None` for whole images, which have no place.
    """
    if position is None:
        return None, scaled(x, module.num_levels), None, None
    at = at_pixel(module, x, position, module.shape, module.num_levels)
    return at, at.value, at.place, at.before


class Masked(NamedTuple):
    """Makes convolutions of grouped channels, of which each is a new layer of the module that calls."""

    num_groups: int

    def __call__(
        self, features: int, rows: int, columns: int, *, right: int = 0, strict: bool = False, use_bias: bool = True
    ) -> CausalConv:
        """A convolution whose kernel has these sides; `strict` is the mask A, otherwise B."""
        centre = functools.partial(between_groups, num_groups=self.num_groups, strict=strict)
        return CausalConv(features, rows, columns, right, centre, use_bias=use_bias)


def check(shape: Sequence[int], features: int, side: int) -> None:
    """Checks the sizes of a network of masked convolutions.

    Raises:
        ValueError: if the shape has not three sides, the features are no multiple of the channels, or the side is even.
    """
    if len(shape) != 3 or min(shape) < 1 or features % shape[2] or features < 1 or side % 2 == 0:
        raise ValueError(
            f"expected a shape (height, width, channels), features divisible by the channels and an odd side of "
            f"kernels, got {tuple(shape)}, {features} and {side}"
        )


class PixelCNN(Causal):
    """The pixel convolutional network, of residual blocks of masked convolutions; elements are channels of pixels.

    Attributes:
        shape: `(height, width, channels)`.
        num_levels: number of values of a channel.
        features: channels of the layers, a multiple of those of the image.
        depth: number of residual blocks.
        side: of the kernel of the first layer, odd; those of the others are 3.
        num_classes: number of labels; 0 for none.

    Raises:
        ValueError: if the shape has not three sides, the features are no multiple of the channels, or the side is even.

    Source: Pixel Recurrent Neural Networks, https://arxiv.org/abs/1601.06759, section 3.4.
    """

    shape: Sequence[int]
    num_levels: int
    features: int = 64
    depth: int = 5
    side: int = 7
    num_classes: int = 0

    def __post_init__(self) -> None:
        check(self.shape, self.features, self.side)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Num[Array, "n ..."], context: Any = None, position: Any = None) -> Any:
        """Logits `[n, h, w, c, levels]` of images `[n, h, w, c]`; or of one channel, `[n] -> [n, levels]`."""
        conv, half = Masked(self.shape[2]), self.side // 2
        at, known, place, before = inputs(self, x, position)
        h = conv(self.features, half + 1, self.side, right=half, strict=True)(known, place, before)
        h = h + label_bias(context, self.num_classes, x.shape[0], self.features, "label")
        for _ in range(self.depth):
            inner = conv(self.features, 1, 1)(nn.relu(h), place)
            inner = conv(self.features, 2, 3, right=1)(nn.relu(inner), place)
            h = h + conv(self.features, 1, 1)(nn.relu(inner), place)
        h = conv(self.features, 1, 1)(nn.relu(h), place)
        return by_channel(conv(self.shape[2] * self.num_levels, 1, 1)(nn.relu(h), place), self.shape[2], at)


def by_channel(logits: Image, channels: int, at: Pixel | None) -> Any:
    """Logits `[n, h, w, c L]` as `[n, h, w, c, L]`, or those of one channel `[n, L]`."""
    logits = logits.reshape(*logits.shape[:3], channels, -1)
    if at is None:
        return logits
    return jax.lax.dynamic_index_in_dim(logits[:, 0, 0], at.channel, axis=1, keepdims=False)


def _gate(h: Image, num_groups: int) -> Image:
    """tanh(a) sigmoid(b), where each group of channels holds its own halves a and b."""
    a, b = jnp.split(h.reshape(*h.shape[:-1], num_groups, -1), 2, axis=-1)
    return (jnp.tanh(a) * nn.sigmoid(b)).reshape(*h.shape[:-1], -1)


class _RowsAbove(nn.Module):
    """The stack v of (1): of every layer, its convolution, from the rows above."""

    features: int
    depth: int
    side: int

    @nn.compact
    def __call__(self, v: Image, place: Place | None = None) -> tuple[Any, ...]:
        """Maps rows `[n, h, w, c]`, each the one above its place, to `depth` maps `[n, h, w, 2 features]`."""
        maps = []
        for i in range(self.depth):
            side = self.side if i == 0 else 3
            maps.append(CausalConv(2 * self.features, side // 2 + 1, side, right=side // 2)(v, place))
            v = _gate(maps[-1], 1)
        return tuple(maps)


class GatedPixelCNN(Causal):
    """The gated pixel convolutional network (1), which has no blind spot; elements are channels of pixels.

    Attributes:
        shape: `(height, width, channels)`.
        num_levels: number of values of a channel.
        features: channels of the layers, a multiple of those of the image.
        depth: number of layers.
        side: of the kernels of the first layer, odd; those of the others are 3.
        num_classes: number of labels; 0 for none.

    Raises:
        ValueError: if the shape has not three sides, the features are no multiple of the channels, or the side is even.

    Source: Conditional Image Generation with PixelCNN Decoders, https://arxiv.org/abs/1606.05328.
    """

    shape: Sequence[int]
    num_levels: int
    features: int = 64
    depth: int = 5
    side: int = 7
    num_classes: int = 0

    def __post_init__(self) -> None:
        check(self.shape, self.features, self.side)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Num[Array, "n ..."], context: Any = None, position: Any = None) -> Any:
        """Logits `[n, h, w, c, levels]` of images `[n, h, w, c]`; or of one channel, `[n] -> [n, levels]`."""
        at, known, place, before = inputs(self, x, position)
        stack = _RowsAbove(self.features, self.depth, self.side, name="above")
        above = stack(row_before(known)) if at is None else rows_above(self, stack, at)
        conv, groups, skipped, h = Masked(self.shape[2]), self.shape[2], jnp.zeros(()), known
        for i in range(self.depth):
            columns, first = (self.side // 2 + 1, True) if i == 0 else (2, False)
            inner = conv(2 * self.features, 1, columns, strict=first)(h, place, before if first else None)
            inner = inner + Dense(2 * self.features)(above[i])
            inner = inner + label_bias(context, self.num_classes, x.shape[0], 2 * self.features, f"label_{i}")
            inner = _gate(inner, groups)
            skipped = skipped + conv(self.features, 1, 1)(inner, place)
            residual = conv(self.features, 1, 1)(inner, place)
            h = residual if first else h + residual
        h = conv(self.features, 1, 1)(nn.relu(skipped), place)
        return by_channel(conv(groups * self.num_levels, 1, 1)(nn.relu(h), place), groups, at)


def row_before(x: Image) -> Image:
    """The image moved down by one row."""
    return jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))


def rows_above(module: nn.Module, stack: nn.Module, at: Pixel, *args: Any) -> Any:
    """The maps of a stack of the rows above, at one pixel; they are computed for a whole row where it begins.

    Args:
        module: the module that calls; it keeps the row before and the maps.
        stack: `(row [n, 1, w, c], place, *args) -> maps`, a tree of `[n, 1, w', k]` with w' a fraction of w.
        at: the pixel.
        *args: what else the stack is called with.
    """
    n, width = at.value.shape[0], at.place.width
    line: Any = module.variable("cache", "line", jnp.zeros, (n, 1, width, at.value.shape[-1]))
    line.value = jax.lax.dynamic_update_slice(line.value, at.value, (0, 0, at.before.column, 0))
    row = at.place._replace(column=None)
    compute = lambda stack: stack(line.value, row, *args)  # noqa: E731
    maps = kept_unless((at.place.column == 0) & (at.channel == 0), compute, module, stack, "maps")
    column = lambda leaf: at.place.column * leaf.shape[2] // width  # noqa: E731
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, column(leaf), 1, axis=2), maps)


def kept_unless(due: Any, compute: Callable[[Any], Any], module: nn.Module, part: nn.Module, name: str) -> Any:
    """`compute(part)` where it is due, and otherwise what it was the last time, and with it the cache of the part.

    Args:
        due: whether to compute.
        compute: called with the part, whose cache it changes.
        module: the module that calls, which keeps the result under a name of its cache.
        part: a module in it.
        name: the name.
    """
    if not module.has_variable("cache", name):
        value = compute(part)
        return module.variable("cache", name, lambda: value).value
    kept: Any = module.variable("cache", name)
    kept.value = nn.cond(due, lambda part, old: compute(part), lambda part, old: old, part, kept.value)
    return kept.value
