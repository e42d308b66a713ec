r"""Glow: a multi-scale normalising flow of images by coupling layers and invertible 1x1 convolutions.

    (1)  step(x) = coupling(convolution_1x1(actnorm(x)))
    (2)  scale(x) = unsqueeze(factor_out(scale)(prior(steps(squeeze(x))))), and unsqueeze(steps(squeeze(x))) at last
    (3)  prior: the half of the channels that is factored out is standardised with a mean and a scale that a network
         computes from the other half, a coupling layer

A fresh flow standardises the first batch at every step and rotates its channels, since every network starts at zero.

Source: Glow: Generative Flow with Invertible 1x1 Convolutions, https://arxiv.org/abs/1807.03039.
"""

from collections.abc import Sequence

from jaxgen.bijections import (
    Bijection,
    Elementwise,
    actnorm,
    chain,
    coupling,
    flow,
    halves,
    invert,
    invertible_1x1,
    logit,
    multi_scale,
    repeat,
    scale_shift,
    squeeze,
)
from jaxgen.core import Model
from jaxgen.nets.resnet import ResNet

__all__ = ["glow"]


def glow(
    shape: Sequence[int],
    *,
    num_scales: int = 2,
    num_steps: int = 8,
    features: int = 32,
    num_blocks: int = 1,
    num_classes: int = 0,
    alpha: float = 0.05,
    elementwise: Elementwise | None = None,
    unroll: int = 8,
) -> Model:
    """Builds Glow of images with values in [0, 1], (2) after a logit.

    `transforms.dequantize` makes it a model of integer images. The conditioners are residual networks, in the place of
    the source's three wide convolutions.

    Args:
        shape: (height, width, channels) of the images; 2^num_scales divides both sides.
        num_scales: number of scales, each of half the sides of the one before, at least 1.
        num_steps: number of steps (1) at each scale.
        features: channels of each conditioner, a `ResNet`.
        num_blocks: residual blocks of each conditioner.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.
        alpha: the flow models logit(alpha + (1 - 2 alpha) x).
        elementwise: how a coupling changes elements; `scale_shift()` if not given, `rational_quadratic_spline()` for a
            neural spline flow of images, `shift()` for the additive Glow.
        unroll: up to so many steps are compiled without a loop, see `bijections.repeat`.

    Returns:
        A `Model` of reals `[n, height, width, channels]` with exact `log_prob`, `encode` and `decode`; its `init` looks
        at the batch.

    Raises:
        ValueError: if the sides cannot be halved so often, or a number is out of range.

    Source: Glow: Generative Flow with Invertible 1x1 Convolutions, https://arxiv.org/abs/1807.03039.
    """
    change = elementwise or scale_shift()

    def net(num_changed: int, num_params: int) -> ResNet:
        return ResNet(features, num_changed * num_params, num_blocks, num_classes, zero_init=True)

    def steps(channels: int) -> Bijection:
        conditioner = net(channels - channels // 2, change.num_params)
        step = chain(actnorm(), invertible_1x1(), coupling(conditioner, elementwise=change))
        return repeat(step, num_steps, unroll=unroll)

    def level(channels: int) -> Sequence[Bijection]:
        return squeeze(), steps(4 * channels), coupling(net(2 * channels, 2), halves(swap=True))

    def last(channels: int) -> Bijection:
        return chain(squeeze(), steps(4 * channels), invert(squeeze()))

    layers = multi_scale(shape, level, last, num_levels=num_scales - 1, num_halvings=num_scales)
    return flow(chain(logit(alpha), layers), shape)
