"""What the output of a network means, each with two conversions through the denoiser and the scale of its input."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.paths import views
from jaxgen.paths.path import Path, Time, log_snr, scales, slopes
from jaxgen.types import Data

__all__ = [
    "EPS",
    "SCORE",
    "V",
    "VELOCITY",
    "X0",
    "Parametrization",
    "denoiser",
    "network_output",
    "preconditioned",
    "sensitivity",
    "trigflow",
]

Network = Callable[[Any, Any], Any]
"""`(x [n, ...], level [n]) -> out`, like x."""


def _unit_scale(path: Path, t: Time, like: Data) -> Any:
    """1 / sqrt(alpha^2 + sigma^2), which gives data of variance 1 the variance 1 at every time."""
    alpha, sigma = scales(path, t, like)
    return 1 / jnp.sqrt(alpha**2 + sigma**2)


def _log_noise(path: Path, t: Time) -> Any:
    """ln(sigma / alpha)."""
    return -0.5 * log_snr(path, t)


class Parametrization(NamedTuple):
    """What a network is asked, and what its output means.

    Attributes:
        to_x0: `(path, x_t, t, out) -> x0`; affine in `out`.
        from_x0: `(path, x_t, t, x0) -> out`, its inverse.
        scale: `(path, t, like) -> c_in`, the factor of x_t where it enters the network.
        level: `(path, t) -> c_noise`, the noise level the network is told; ln(sigma / alpha) by default.
    """

    to_x0: Callable[[Path, Any, Any, Any], Any]
    from_x0: Callable[[Path, Any, Any, Any], Any]
    scale: Callable[[Path, Any, Any], Any] = _unit_scale
    level: Callable[[Path, Any], Any] = _log_noise


def network_output(path: Path, parametrization: Parametrization, net: Network, x_t: Data, t: Time) -> Data:
    """Out = net(c_in x_t, c_noise), for one time or one for each example."""
    level = jnp.broadcast_to(parametrization.level(path, t), x_t.shape[:1])
    return net(parametrization.scale(path, t, x_t) * x_t, level)


def denoiser(path: Path, parametrization: Parametrization, net: Network) -> Callable[[Any, Any], Any]:
    """The denoiser `(x_t, t) -> x0` that a network stands for."""
    return lambda x_t, t: parametrization.to_x0(path, x_t, t, network_output(path, parametrization, net, x_t, t))


def sensitivity(path: Path, parametrization: Parametrization, t: Float[Array, " n"]) -> Float[Array, " n"]:
    """b(t) with out = a(t) x_t + b(t) x0: an error of x0 is b times as large in the output."""
    return parametrization.from_x0(path, jnp.zeros_like(t), t, jnp.ones_like(t))


def _eps_to_x0(path: Path, x_t: Data, t: Time, out: Data) -> Data:
    alpha, sigma = scales(path, t, x_t)
    return (x_t - sigma * out) / alpha


def _v_to_x0(path: Path, x_t: Data, t: Time, out: Data) -> Data:
    alpha, sigma = scales(path, t, x_t)
    square = alpha**2 + sigma**2
    return (alpha * x_t - sigma * jnp.sqrt(square) * out) / square


def _v_from_x0(path: Path, x_t: Data, t: Time, x0: Data) -> Data:
    alpha, sigma = scales(path, t, x_t)
    return (alpha * views.eps(path, x_t, t, x0) - sigma * x0) / jnp.sqrt(alpha**2 + sigma**2)


def _score_to_x0(path: Path, x_t: Data, t: Time, out: Data) -> Data:
    alpha, sigma = scales(path, t, x_t)
    return (x_t + sigma**2 * out) / alpha


def _score_from_x0(path: Path, x_t: Data, t: Time, x0: Data) -> Data:
    return -views.eps(path, x_t, t, x0) / scales(path, t, x_t)[1]


def _velocity_to_x0(path: Path, x_t: Data, t: Time, out: Data) -> Data:
    (alpha, sigma), (d_alpha, d_sigma) = scales(path, t, x_t), slopes(path, t, x_t)
    return (d_sigma * x_t - sigma * out) / (d_sigma * alpha - d_alpha * sigma)


X0 = Parametrization(lambda path, x_t, t, out: out, lambda path, x_t, t, x0: x0)
"""The network predicts the clean data."""

EPS = Parametrization(_eps_to_x0, views.eps)
"""The network predicts the noise."""

V = Parametrization(_v_to_x0, _v_from_x0)
"""The network predicts v = (alpha eps - sigma x0) / sqrt(alpha^2 + sigma^2), well scaled at both ends of the path."""

SCORE = Parametrization(_score_to_x0, _score_from_x0)
"""The network predicts the score."""

VELOCITY = Parametrization(_velocity_to_x0, views.velocity)
"""The network predicts dx_t/dt, as in flow matching; on the linear path that is eps - x0."""


def preconditioned(*, sigma_data: float = 0.5, keep_t_min: bool = False) -> Parametrization:
    """The network predicts what a linear denoiser leaves over, of variance 1 at every time for data of spread s.

    x0 = c_skip x_t + c_out F(c_in x_t, c_noise), with r^2 = s^2 alpha^2 + sigma^2: c_skip = s^2 alpha / r^2,
    c_out = s sigma / r, c_in = 1 / r, c_noise = ln(sigma / alpha) / 4. With alpha = 1 this is table 1 of the source.

    Consistency functions must keep the end of their path: x0 = x_t / alpha at t_min, whatever the network says. For
    that, the noise sigma_min / alpha_min of that end is taken off: with sigma' = sigma - alpha sigma_min / alpha_min,
    c_skip = s^2 alpha / (s^2 alpha^2 + sigma'^2) and c_out = s sigma' / r.

    Args:
        sigma_data: s, the standard deviation of the data.
        keep_t_min: keep the end of the path exactly, for consistency functions.

    Returns:
        A `Parametrization`.

    Raises:
        ValueError: unless `sigma_data` is positive.

    Sources: https://arxiv.org/abs/2206.00364; for t_min Consistency Models, https://arxiv.org/abs/2303.01469,
    appendix C.
    """
    if not sigma_data > 0:
        raise ValueError(f"sigma_data must be positive, got {sigma_data}")

    def coefficients(path: Path, t: Time, like: Data) -> tuple[Any, Any, Any]:
        alpha, sigma = scales(path, t, like)
        spread = jnp.sqrt((sigma_data * alpha) ** 2 + sigma**2)
        above = sigma - alpha * jnp.exp(_log_noise(path, path.t_min)) if keep_t_min else sigma
        skip = sigma_data**2 * alpha / ((sigma_data * alpha) ** 2 + above**2)
        return skip, sigma_data * above / spread, spread

    def to_x0(path: Path, x_t: Data, t: Time, out: Data) -> Data:
        skip, scale, _ = coefficients(path, t, x_t)
        return skip * x_t + scale * out

    def from_x0(path: Path, x_t: Data, t: Time, x0: Data) -> Data:
        skip, scale, _ = coefficients(path, t, x_t)
        return (x0 - skip * x_t) / scale

    def scale(path: Path, t: Time, like: Data) -> Any:
        return 1 / coefficients(path, t, like)[2]

    return Parametrization(to_x0, from_x0, scale, lambda path, t: 0.25 * _log_noise(path, t))


def trigflow(*, sigma_data: float = 0.5) -> Parametrization:
    """`preconditioned`, but the network is told the angle arctan(sigma / (s alpha)), from 0 to pi / 2.

    On any path this is the source's TrigFlow, with the sign of the network reversed: x0 / s = cos(a) y + sin(a) F(y, a)
    with the angle a and y = x_t / r. The angle does not run off where hardly any data is left.

    Args:
        sigma_data: s, the standard deviation of the data.

    Returns:
        A `Parametrization`.

    Raises:
        ValueError: unless `sigma_data` is positive.

    Source: Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, https://arxiv.org/abs/2410.11081.
    """

    def angle(path: Path, t: Time) -> Any:
        t = jnp.asarray(t, jnp.float32)
        return jnp.arctan2(path.sigma(t), sigma_data * path.alpha(t))

    return preconditioned(sigma_data=sigma_data)._replace(level=angle)
