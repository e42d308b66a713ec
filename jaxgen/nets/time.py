"""Networks and features of a time or noise level."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jaxgen.nets.mlp import MLP
from jaxgen.types import Cond

__all__ = ["TimeMLP", "fourier_features", "slow_features", "time_features"]


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
    return _waves(t, jnp.geomspace(slowest, fastest, num_features // 2))


def fourier_features(t: Num[Array, "n *k"], num_features: int, *, scale: float = 16.0) -> Float[Array, "n features"]:
    """Cosines and sines of 2 pi f t with normal frequencies, f ~ N(0, scale^2), whose quantiles stand for draws.

    Args:
        t: times or noise levels `[n]`, or several of each example, `[n, k]`.
        num_features: number of features of each, even.
        scale: standard deviation of the frequencies, in periods per unit of `t`.

    Returns:
        `[n, num_features]`, or `[n, k num_features]`; in [-1, 1].

    Source: Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains,
    https://arxiv.org/abs/2006.10739; for noise levels https://arxiv.org/abs/2011.13456.
    """
    half = num_features // 2
    quantiles = jax.scipy.special.ndtri(0.5 + (jnp.arange(half) + 0.5) / (2 * half))
    return _waves(t, 2 * jnp.pi * scale * quantiles)


def slow_features(t: Num[Array, "n *k"], num_features: int) -> Float[Array, "n features"]:
    """`time_features` of low frequency, 0.01 to 3: for times or angles of order 1 of which derivatives are taken.

    Args:
        t: times or angles `[n]`, or several of each example, `[n, k]`.
        num_features: number of features of each, even.

    Returns:
        `[n, num_features]`, or `[n, k num_features]`; in [-1, 1].

    Source: Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, https://arxiv.org/abs/2410.11081,
    section 4.1, on why fast features make such a training unstable.
    """
    return time_features(t, num_features, slowest=0.01, fastest=3.0)


def _waves(t: Num[Array, "n *k"], frequencies: Float[Array, " f"]) -> Float[Array, "n features"]:
    """Cosines, then sines, of every column of `t`."""
    angles = t[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1).reshape(t.shape[0], -1)


class TimeMLP(nn.Module):
    """A multilayer perceptron of noisy vectors and their noise level.

    Attributes:
        features: widths of the hidden layers.
        num_classes: number of labels; 0 for none.
        num_time_features: features of each noise level that are appended to the input.
        activation: nonlinearity of the hidden layers.
        embed: features of a noise level, `(t, num_features) -> [n, num_features]`.
        dtype: type of the computation in hidden layers; parameters, the last layer and output are float32.
    """

    features: Sequence[int]
    num_classes: int = 0
    num_time_features: int = 32
    activation: Callable[[Any], Any] = nn.silu
    embed: Callable[[Any, int], Any] = time_features
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n d"], t: Num[Array, "n *k"], cond: Cond = None) -> Float[Array, "n d"]:
        """Maps `x [n, d]`, noise levels `t [n]` or `[n, k]` and labels `cond [n]` to `[n, d]`, zero at the start."""
        x_and_t = jnp.concatenate([x, self.embed(t, self.num_time_features)], axis=-1)
        options = {"zero_init": True, "dtype": self.dtype}
        return MLP(self.features, x.shape[-1], self.num_classes, self.activation, **options)(x_and_t, cond)
