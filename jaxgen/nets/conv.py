r"""Convolutional encoders and decoders of images, which halve or double both sides at every layer.

A decoder doubles the sides by a convolution at the low resolution with four times the channels, whose groups of four
become the 2 x 2 pixels of the high one (sub-pixel convolution). Trained, it is a transposed convolution of a larger
kernel; on a CPU its gradient takes a third of the time, and on a GPU it is an ordinary convolution too.

Source: Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network,
https://arxiv.org/abs/1609.05158.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from jaxgen.nets.dense import Dense
from jaxgen.nets.mlp import append_label
from jaxgen.nets.norm import GroupNorm
from jaxgen.nets.winograd import Conv
from jaxgen.types import Cond

__all__ = ["ConvDecoder", "ConvEncoder", "depth_to_space"]

leaky_relu = functools.partial(nn.leaky_relu, negative_slope=0.2)


def depth_to_space(x: Shaped[Array, "n h w c"], block: int = 2) -> Shaped[Array, "n height width features"]:
    """Moves groups of channels into blocks of pixels: [n, h, w, b b f] -> [n, b h, b w, f] with b = block.

    y[n, b i + p, b j + q, k] = x[n, i, j, (b p + q) f + k] for p, q in {0, ..., b - 1}.

    Raises:
        ValueError: if the number of channels is no multiple of b^2.
    """
    n, h, w, c = x.shape
    if c % block**2:
        raise ValueError(f"depth_to_space by blocks of {block} needs channels divisible by {block**2}, got {c}")
    x = x.reshape(n, h, w, block, block, c // block**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, block * h, block * w, -1)


def _check_sides(shape: Sequence[int], num_halvings: int) -> None:
    factor = 2**num_halvings
    if len(shape) != 3 or any(side < 1 or side % factor for side in shape[:2]):
        raise ValueError(f"expected an image shape (h, w, c) with sides divisible by {factor}, got {tuple(shape)}")


def _check_groups(widths: Sequence[int], num_groups: int) -> None:
    if num_groups < 0 or (num_groups and any(width % num_groups for width in widths)):
        raise ValueError(f"num_groups must divide the channels {tuple(widths)} or be 0, got {num_groups}")


def _normalise(x: Float[Array, "n h w c"], num_groups: int) -> Float[Array, "n h w c"]:
    return GroupNorm(num_groups)(x) if num_groups else x


class ConvEncoder(nn.Module):
    """Strided convolutions from images to vectors; a critic or a recognition network.

    The label, if there is one, shifts the channels of every hidden layer.

    Attributes:
        features: channels of the hidden layers, each of which halves both sides.
        out_dim: width of the output.
        num_classes: number of labels; 0 for none.
        num_groups: groups of the normalisation of every hidden layer but the first; 0 for none.
        activation: nonlinearity of the hidden layers.

    Raises:
        ValueError: if the groups do not divide the channels.
    """

    features: Sequence[int] = (32, 64)
    out_dim: int = 1
    num_classes: int = 0
    num_groups: int = 0
    activation: Callable[[Any], Any] = leaky_relu

    def __post_init__(self) -> None:
        _check_groups(self.features[1:], self.num_groups)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Shaped[Array, "n h w c"], cond: Cond = None) -> Float[Array, "n out"]:
        """Maps images `x [n, h, w, c]` and labels `cond [n]` to `[n, out_dim]`.

        Raises:
            ValueError: if the sides are not divisible by 2^len(features), or there are classes and no label.
        """
        _check_sides(x.shape[1:], len(self.features))
        x = x.astype(jnp.float32)
        label = append_label(jnp.zeros((x.shape[0], 0)), cond, self.num_classes)
        for layer, width in enumerate(self.features):
            x = _normalise(Conv(width, (4, 4), strides=2)(x), self.num_groups if layer else 0)
            if self.num_classes:
                x = x + Dense(width, use_bias=False)(label)[:, None, None]
            x = self.activation(x)
        return Dense(self.out_dim)(x.reshape(x.shape[0], -1))


class ConvDecoder(nn.Module):
    """Sub-pixel convolutions from vectors to images of logits or means; a generator or a decoder.

    Attributes:
        shape: height, width and channels of the images; the sides divisible by 2^len(features).
        features: channels of the hidden layers, from the smallest image to the largest.
        num_classes: number of labels appended one-hot to the latent; 0 for none.
        num_groups: groups of the normalisation of every hidden layer; 0 for none.
        activation: nonlinearity of the hidden layers.

    Raises:
        ValueError: if the sides of `shape` are not divisible by 2^len(features), or the groups do not divide the
            channels.
    """

    shape: Sequence[int]
    features: Sequence[int] = (64, 32)
    num_classes: int = 0
    num_groups: int = 0
    activation: Callable[[Any], Any] = leaky_relu

    def __post_init__(self) -> None:
        _check_sides(self.shape, len(self.features))
        _check_groups(self.features, self.num_groups)
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Float[Array, "n k"], cond: Cond = None) -> Float[Array, "n h w c"]:
        """Maps latents `z [n, k]` and labels `cond [n]` to `[n, *shape]`.

        Raises:
            ValueError: if there are classes and no label.
        """
        height, width, channels = self.shape
        factor = 2 ** len(self.features)
        widths = [*self.features, channels]
        smallest = (height // factor, width // factor, widths[0])
        x = Dense(smallest[0] * smallest[1] * smallest[2])(append_label(z, cond, self.num_classes))
        x = x.reshape(-1, *smallest)
        for out in widths[1:]:
            x = self.activation(_normalise(x, self.num_groups))
            x = depth_to_space(Conv(4 * out, (3, 3))(x))
        return x
