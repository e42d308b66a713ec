r"""Arrangements of layers that several flows share.

    (1)  vectors:  layer, mix, layer, mix, ...: `mix` reorders, so that what one layer keeps the next one changes
    (2)  images:   scale(x) = unsqueeze(factor_out(scale)(level(x))), where a level halves the sides of what it is given

Source: Density estimation using Real NVP, https://arxiv.org/abs/1605.08803.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jaxgen.bijections.autoregressive import inverse_autoregressive, masked_autoregressive
from jaxgen.bijections.base import Bijection, chain, invert, repeat
from jaxgen.bijections.coupling import Elementwise, coupling, factor_out
from jaxgen.bijections.fixed import reverse, squeeze

__all__ = ["autoregressive_layers", "coupling_layers", "multi_scale"]


def coupling_layers(
    num_dims: int,
    net: Callable[[int], Any],
    elementwise: Elementwise,
    *,
    num_layers: int,
    mix: Bijection | None = None,
) -> Bijection:
    """Coupling layers of vectors, (1), as one `lax.scan`.

    Args:
        num_dims: D >= 2, the number of dimensions.
        net: `num_outputs -> linen module`, the conditioner; its output should start at zero.
        elementwise: how the second half of a vector is changed.
        num_layers: number of layers.
        mix: what follows every layer; `reverse()` if not given.

    Raises:
        ValueError: if there are fewer than two dimensions or no layer.
    """
    if num_dims < 2:
        raise ValueError(f"a coupling layer needs num_dims of at least 2, got {num_dims}")
    num_changed = num_dims - num_dims // 2
    layer = coupling(net(elementwise.num_params * num_changed), elementwise=elementwise)
    return repeat(chain(layer, mix or reverse()), num_layers)


def autoregressive_layers(
    num_dims: int, net: Callable[[int], Any], elementwise: Elementwise, *, num_layers: int, inverse: bool = False
) -> Bijection:
    """Masked autoregressive layers of vectors, each in the reverse order of the one before, (1), as one `lax.scan`.

    Args:
        num_dims: D >= 1, the number of dimensions.
        net: `outputs_per_dim -> linen module`, a masked network; its output should start at zero.
        elementwise: how each element is changed.
        num_layers: number of layers.
        inverse: inverse autoregressive layers, from base to data in one pass each.

    Raises:
        ValueError: if there is no dimension or no layer.
    """
    if num_dims < 1:
        raise ValueError(f"an autoregressive layer needs num_dims of at least 1, got {num_dims}")
    layer = inverse_autoregressive if inverse else masked_autoregressive
    return repeat(chain(layer(net(elementwise.num_params), elementwise), reverse()), num_layers)


def multi_scale(
    shape: Sequence[int],
    level: Callable[[int], Sequence[Bijection]],
    last: Callable[[int], Bijection],
    *,
    num_levels: int,
    num_halvings: int,
) -> Bijection:
    """The arrangement (2) of images, which keeps their shape; half of the channels of each level are base already.

    Args:
        shape: (height, width, channels) of the images; 2^num_halvings divides both sides.
        level: `channels -> links`, from images of so many channels to such of half the sides and four times as many.
        last: `channels -> bijection` of the smallest images, which keeps their shape.
        num_levels: number of levels above the last.
        num_halvings: number of times that levels and last halve the sides, at least 1.

    Raises:
        ValueError: if the sides cannot be halved so often.
    """
    divisor = 2**num_halvings
    if len(shape) != 3 or num_halvings < 1 or shape[0] % divisor or shape[1] % divisor:
        raise ValueError(
            f"expected images (height, width, channels) with sides divisible by 2^num_scales and num_scales of at "
            f"least 1, got shape {tuple(shape)} and num_scales {num_halvings}"
        )

    def scale(channels: int, num_levels: int) -> Bijection:
        if num_levels == 0:
            return last(channels)
        rest = scale(2 * channels, num_levels - 1)
        return chain(*level(channels), factor_out(rest), invert(squeeze()))

    return scale(shape[2], num_levels)
