"""Group normalisation of images by sums over the pixels of each channel.

With the groups G of the channels, S pixels and M = S |G| numbers in a group of one example,

    m = sum_(s, c in G) x_sc / M,   v = sum_(s, c in G) x_sc^2 / M - m^2                          (1)
    y_sc = a_c (x_sc - m) + bias_c,   a_c = scale_c / sqrt(v + epsilon)                           (2)
    dy_sc = a_c dx_sc + x_sc da_c + (dbias_c - m da_c - a_c dm)                                   (3)

The sums over pixels are taken for every channel first, along whole rows of memory, and only these few numbers are then
added up over a group, by a product with a matrix of 0 and 1 / |G|. Nothing of the size of the image is ever reshaped to
groups, and no channel looks up its group at a pixel, which is what takes the time of the textbook form on a CPU: it
reads the image once for (1) and once for (2). The derivative is written as (3), so that nothing but the image is kept
for the gradient, and of its size are two sums over the pixels.

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
        a, mean, bias = (jnp.expand_dims(each, pixels) for each in (a, mean, bias[None]))
        return _scaled(wide, a, mean, bias).astype(self.dtype)

    def _of_groups(self, mean: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """The mean over each group of channels, at each of its channels."""
        channels = mean.shape[-1]
        group = jnp.arange(channels) // (channels // self.num_groups)
        average = (group[:, None] == group) * (self.num_groups / channels)
        return jnp.matmul(mean, average, precision="highest")


@jax.custom_jvp
def _scaled(x: Any, a: Any, mean: Any, bias: Any) -> Any:
    """(2)."""
    return a * (x - mean) + bias


@_scaled.defjvp
def _scaled_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """(3)."""
    (x, a, mean, _), (dx, da, dmean, dbias) = primals, tangents
    return _scaled(*primals), a * dx + x * da + (dbias - mean * da - a * dmean)
