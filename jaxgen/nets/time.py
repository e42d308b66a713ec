"""Networks and features of a time or noise level."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jaxgen.nets.mlp import MLP
from jaxgen.types import Cond

__all__ = ["TimeMLP", "time_features"]


def time_features(
    t: Num[Array, "n *k"], num_features: int, *, slowest: float = 0.1, fastest: float = 30.0
) -> Float[Array, "n features"]:
    """Cosines and sines of `t` at geometrically spaced frequencies.

    The defaults suit noise levels ln(sigma / alpha), of which tenths matter.

    Args:
        t: times or noise levels `[n]`, or several of each example, `[n, k]`.
        num_features: number of features of each, even.
        slowest: lowest frequency, in radians per unit of `t`.
        fastest: highest frequency.

    Returns:
        `[n, num_features]`, or `[n, k num_features]`, the features of one column after those of another; in [-1, 1].
    """
    frequencies = jnp.geomspace(slowest, fastest, num_features // 2)
    angles = t[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1).reshape(t.shape[0], -1)


class TimeMLP(nn.Module):
    """A multilayer perceptron of noisy vectors and their noise level.

    Attributes:
        features: widths of the hidden layers.
        num_classes: number of labels; 0 for none.
        num_time_features: features of each noise level that are appended to the input.
        activation: nonlinearity of the hidden layers.
    """

    features: Sequence[int]
    num_classes: int = 0
    num_time_features: int = 32
    activation: Callable[[Any], Any] = nn.silu

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], t: Num[Array, "n *k"], cond: Cond = None) -> Float[Array, "n d"]:
        """Maps `x [n, d]`, noise levels `t [n]` or `[n, k]` and labels `cond [n]` to `[n, d]`, zero at the start."""
        x_and_t = jnp.concatenate([x, time_features(t, self.num_time_features)], axis=-1)
        return MLP(self.features, x.shape[-1], self.num_classes, self.activation, zero_init=True)(x_and_t, cond)
