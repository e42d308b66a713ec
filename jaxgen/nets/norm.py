"""Group normalisation of images by sums over the pixels of each channel.

With the groups G of the channels, S pixels and M = S |G| numbers in a group of one example,

    m = sum_(s, c in G) x_sc / M,   v = sum_(s, c in G) x_sc^2 / M - m^2                          (1)
    y_sc = a_c x_sc + b_c,   a_c = scale_c / sqrt(v + epsilon),   b_c = bias_c - a_c m            (2)

The sums over pixels are taken for every channel first, along whole rows of memory, and only these few numbers are then
added up over a group, by a product with a matrix of 0 and 1 / |G|. Nothing of the size of the image is ever reshaped to
groups, and no channel looks up its group at a pixel, which is what takes the time of the textbook form on a CPU: it
reads the image once for (1) and once for (2), and keeps nothing but the image for the gradient.

In float32 (1) loses the digits of m^2 above v, as Flax's fast variance does: of an image whose mean is 10^k deviations
about 6 - 2k digits are right, and of a group of equal numbers nothing is left but rounding.

Source: Group Normalization, https://arxiv.org/abs/1803.08494.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

__all__ = ["GroupNorm"]


class GroupNorm(nn.Module):
    """Normalises the mean and the variance of each example's groups of channels, then scales and shifts each channel.

    The same function, and the same parameters `scale [c]` and `bias [c]`, as `flax.linen.GroupNorm`.

    Attributes:
        num_groups: groups of neighbouring channels, which must divide the channels.
        epsilon: added to the variance.
        dtype: type of the result; sums are float32, as the parameters are.

    Raises:
        ValueError: when called, if the groups do not divide the channels.
    """

    num_groups: int
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n *pixels c"]) -> Float[Array, "n *pixels c"]:
        """Maps `x [n, ..., c]` to the same shape."""
        channels, pixels = x.shape[-1], tuple(range(1, x.ndim - 1))
        if self.num_groups < 1 or channels % self.num_groups:
            raise ValueError(f"num_groups must divide the {channels} channels, got {self.num_groups}")
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        wide = x.astype(jnp.float32)
        mean, square = (self._of_groups(moment.mean(pixels)) for moment in (wide, wide * wide))  # (1)
        a = scale * jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0.0) + self.epsilon)  # (2)
        a, b = (jnp.expand_dims(each, pixels) for each in (a, bias - a * mean))
        return (a * wide + b).astype(self.dtype)

    def _of_groups(self, mean: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """The mean over each group of channels, at each of its channels."""
        channels = mean.shape[-1]
        group = jnp.arange(channels) // (channels // self.num_groups)
        average = (group[:, None] == group) * (self.num_groups / channels)
        return jnp.matmul(mean, average, precision="highest")
