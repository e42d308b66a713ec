r"""Real NVP: a normalising flow of affine coupling layers, of vectors and of images.

    (1)  one layer:  (a, b) = split(x),  z = merge(a, b exp(s(a)) + t(a)),  ln|det dz/dx| = sum_d s_d(a)
    (2)  vectors:    layer, reverse, layer, reverse, ...: what one layer keeps, the next one changes
    (3)  images:     scale(x) = unsqueeze(factor_out(scale)(layers(squeeze(uncheckerboard(layers(checkerboard(x)))))))

Both `checkerboard` and `squeeze` make four channels of each 2x2 block, of which a layer keeps half: one colour of a
checkerboard, or one row of each block. `factor_out` leaves half of the channels to the base and goes on with the others
at half the resolution; the last scale is layers alone. The latent has the shape of the image.
Before each layer on images every channel has a learned shift and scale, in place of the paper's batch normalisation.

Fresh vector flows only reorder, fresh image flows only standardise the first batch, since every network starts at zero.

Source: Density estimation using Real NVP, https://arxiv.org/abs/1605.08803.
"""

from collections.abc import Sequence

from jaxgen.bijections import (
    Bijection,
    actnorm,
    chain,
    checkerboard,
    coupling,
    coupling_layers,
    flow,
    invert,
    logit,
    multi_scale,
    repeat,
    reverse,
    scale_shift,
    squeeze,
)
from jaxgen.core import Model
from jaxgen.nets.mlp import MLP
from jaxgen.nets.resnet import ResNet

__all__ = ["real_nvp", "real_nvp_image"]


def real_nvp(num_dims: int, *, num_layers: int = 8, features: Sequence[int] = (64, 64), num_classes: int = 0) -> Model:
    """Builds Real NVP of vectors, (2).

    Args:
        num_dims: D >= 2, the number of data dimensions.
        num_layers: number of coupling layers; they run as one `lax.scan`, so compile time does not grow with it.
        features: widths of the hidden layers of each conditioner, an `MLP`.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.

    Returns:
        A `Model` of reals `[n, D]` with exact `log_prob`, `encode` and `decode`.

    Raises:
        ValueError: if there are fewer than two dimensions or no layer.

    Source: Density estimation using Real NVP, https://arxiv.org/abs/1605.08803.
    """

    def net(num_outputs: int) -> MLP:
        return MLP(tuple(features), num_outputs, num_classes, zero_init=True)

    return flow(coupling_layers(num_dims, net, scale_shift(), num_layers=num_layers), (num_dims,))


def real_nvp_image(
    shape: Sequence[int],
    *,
    num_scales: int = 2,
    num_layers: int = 4,
    features: int = 32,
    num_blocks: int = 2,
    num_classes: int = 0,
    alpha: float = 0.05,
    unroll: int = 8,
) -> Model:
    """Builds multi-scale Real NVP of images with values in [0, 1], (3) after a logit.

    `transforms.dequantize` makes it a model of integer images.

    Args:
        shape: (height, width, channels) of the images; 2^num_scales divides both sides.
        num_scales: number of times that the sides are halved, at least 1.
        num_layers: number of coupling layers of each kind (checkerboard, channels) at each scale.
        features: channels of each conditioner, a `ResNet`.
        num_blocks: residual blocks of each conditioner.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.
        alpha: the flow models logit(alpha + (1 - 2 alpha) x); the paper takes 0.05.
        unroll: up to so many layers of a kind are compiled without a loop, see `bijections.repeat`.

    Returns:
        A `Model` of reals `[n, height, width, channels]` with exact `log_prob`, `encode` and `decode`; its `init` looks
        at the batch.

    Raises:
        ValueError: if the sides cannot be halved so often, or a number is out of range.

    Source: Density estimation using Real NVP, https://arxiv.org/abs/1605.08803.
    """

    def layers(channels: int) -> Bijection:
        net = ResNet(features, channels, num_blocks, num_classes, zero_init=True)
        return repeat(chain(actnorm(), coupling(net), reverse()), num_layers, unroll=unroll)

    def level(channels: int) -> Sequence[Bijection]:
        own = layers(4 * channels)
        return checkerboard(), own, invert(checkerboard()), squeeze(), own

    scales = multi_scale(shape, level, layers, num_levels=num_scales, num_halvings=num_scales)
    return flow(chain(logit(alpha), scales), shape)
