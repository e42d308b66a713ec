r"""Noise paths, what a network may predict on them, and grids of times.

A path carries data to noise. Time runs from t_min (hardly any noise) to t_max (hardly any data), and both scales are
functions of it:

    (1)  x_t = alpha(t) x_0 + sigma(t) eps,  eps ~ N(0, I)
    (2)  log_snr(t) = ln(alpha(t)^2 / sigma(t)^2), falling in t
    (3)  x_T ~ N(0, sigma(t_max)^2 I) is where sampling starts

The denoiser x0(x_t, t) = E[x_0 | x_t] is the canonical quantity, and all others are views of it:

    (4)  eps      = (x_t - alpha x0) / sigma
    (5)  score    = -eps / sigma = gradient of ln p_t(x_t)
    (6)  v        = (alpha eps - sigma x0) / r,  r^2 = alpha^2 + sigma^2
    (7)  velocity = alpha' x0 + sigma' eps = dx_t/dt along the probability flow

Sources: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239; Score-Based Generative Modeling
through Stochastic Differential Equations, https://arxiv.org/abs/2011.13456; Variational Diffusion Models,
https://arxiv.org/abs/2107.00630; Progressive Distillation, https://arxiv.org/abs/2202.00512 (v); Elucidating the
Design Space of Diffusion-Based Generative Models, https://arxiv.org/abs/2206.00364 (the Karras grid).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgen.types import Data

__all__ = [
    "EPS",
    "SCORE",
    "V",
    "X0",
    "Parametrization",
    "Path",
    "Time",
    "cosine",
    "eps",
    "karras_grid",
    "log_snr",
    "log_snr_grid",
    "perturb",
    "posterior",
    "scales",
    "time_of_log_snr",
    "uniform_grid",
    "variance_exploding",
    "variance_preserving",
    "velocity",
]

Time = Num[Array, "..."] | float
"""One time for a whole batch, or `[n]`, one for each example."""

Grid = Float[Array, " num_times"]


class Path(NamedTuple):
    """A noise path (1).

    Attributes:
        alpha: `t -> scale of the data`, elementwise.
        sigma: `t -> scale of the noise`, elementwise.
        t_min: the time that stands for clean data; the noise there is what the samples keep.
        t_max: the time of pure noise (3).
    """

    alpha: Callable[[Any], Any]
    sigma: Callable[[Any], Any]
    t_min: float
    t_max: float


def variance_preserving(*, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-5) -> Path:
    """The variance-preserving path with linear beta(t), t in [t_min, 1].

    B(t) = beta_min t + (beta_max - beta_min) t^2 / 2, alpha = exp(-B / 2), sigma^2 = 1 - exp(-B).

    Args:
        beta_min: beta(0).
        beta_max: beta(1).
        t_min: the time that stands for clean data; sigma(1e-5) is 1e-3.

    Returns:
        A `Path`.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max and 0 < t_min < 1.

    Source: https://arxiv.org/abs/2011.13456, equation 33.
    """
    if not 0 < beta_min <= beta_max:
        raise ValueError(f"expected 0 < beta_min <= beta_max, got {beta_min} and {beta_max}")
    _check_inside("t_min", t_min, 1.0)

    def integral(t: Time) -> Any:
        return beta_min * t + 0.5 * (beta_max - beta_min) * t**2

    return Path(lambda t: jnp.exp(-0.5 * integral(t)), lambda t: jnp.sqrt(-jnp.expm1(-integral(t))), t_min, 1.0)


def cosine(*, margin: float = 1e-3) -> Path:
    """The variance-preserving path along a quarter circle: alpha = cos(pi t / 2), sigma = sin(pi t / 2).

    Args:
        margin: time runs from `margin` to `1 - margin`; sigma(t_min) = alpha(t_max) = 1.6 margin.

    Returns:
        A `Path`.

    Raises:
        ValueError: unless 0 < margin < 1/2.

    Source: Improved Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2102.09672.
    """
    _check_inside("margin", margin, 0.5)
    return Path(lambda t: jnp.cos(0.5 * jnp.pi * t), lambda t: jnp.sin(0.5 * jnp.pi * t), margin, 1 - margin)


def variance_exploding(*, sigma_min: float = 1e-3, sigma_max: float = 80.0) -> Path:
    """The variance-exploding path: alpha = 1, sigma = sigma_min^(1 - t) sigma_max^t, t in [0, 1].

    Args:
        sigma_min: noise at t = 0, in units of the data.
        sigma_max: noise at t = 1, large beside the spread of the data.

    Returns:
        A `Path`.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.

    Source: https://arxiv.org/abs/2011.13456, equation 31.
    """
    _check_inside("sigma_min", sigma_min, sigma_max)
    ratio = sigma_max / sigma_min
    return Path(jnp.ones_like, lambda t: sigma_min * ratio ** jnp.asarray(t), 0.0, 1.0)


def _check_inside(name: str, value: float, upper: float) -> None:
    if not 0 < value < upper:
        raise ValueError(f"{name} must be between 0 and {upper}, got {value}")


def scales(path: Path, t: Time, like: Data) -> tuple[Any, Any]:
    """alpha(t) and sigma(t), shaped to multiply `like [n, ...]`; `t` is one number or `[n]`."""
    t = jnp.asarray(t, jnp.float32)
    t = t.reshape(t.shape + (1,) * (like.ndim - 1)) if t.ndim else t
    return path.alpha(t), path.sigma(t)


def log_snr(path: Path, t: Time) -> Any:
    """The logarithm of the ratio of signal to noise (2), elementwise."""
    t = jnp.asarray(t, jnp.float32)
    return 2 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))


def time_of_log_snr(path: Path, value: Num[Array, "..."]) -> Float[Array, "..."]:
    """The time in [t_min, t_max] whose log-SNR is `value`, by bisection to float32 precision, elementwise."""

    def halve(_: Any, bracket: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = bracket
        middle = 0.5 * (low + high)
        later = log_snr(path, middle) > value
        return jnp.where(later, middle, low), jnp.where(later, high, middle)

    low = jnp.full(value.shape, path.t_min, jnp.float32)
    return jax.lax.fori_loop(0, 48, halve, (low, jnp.full(value.shape, path.t_max, jnp.float32)))[1]


def perturb(path: Path, x0: Data, t: Time, noise: Data) -> Data:
    """x_t of clean data and noise, by (1)."""
    alpha, sigma = scales(path, t, x0)
    return alpha * x0 + sigma * noise


def eps(path: Path, x_t: Data, t: Time, x0: Data) -> Data:
    """The noise in x_t, by (4)."""
    alpha, sigma = scales(path, t, x_t)
    return (x_t - alpha * x0) / sigma


def velocity(path: Path, x_t: Data, t: Time, x0: Data) -> Data:
    """dx_t/dt along the probability flow, by (7), with the derivatives of the path by autodiff."""
    t = jnp.asarray(t, jnp.float32)
    (alpha, sigma), (d_alpha, d_sigma) = jax.jvp(lambda t: scales(path, t, x_t), (t,), (jnp.ones_like(t),))
    return d_alpha * x0 + d_sigma * (x_t - alpha * x0) / sigma


def posterior(path: Path, x_t: Data, t: Time, s: Time, x0: Data) -> tuple[Data, Any]:
    """Mean and scale of q(x_s | x_t, x_0) for s < t, without a difference of large numbers.

    With rho = SNR(t) / SNR(s): scale^2 = sigma_s^2 (1 - rho), mean = alpha_s x0 + sigma_s sqrt(rho) eps.
    """
    alpha, sigma = scales(path, s, x_t)
    log_rho = log_snr(path, t) - log_snr(path, s)
    mean = alpha * x0 + sigma * jnp.exp(0.5 * log_rho) * eps(path, x_t, t, x0)
    return mean, sigma * jnp.sqrt(-jnp.expm1(log_rho))


class Parametrization(NamedTuple):
    """What the output of a network means: two conversions through the denoiser.

    Attributes:
        to_x0: `(path, x_t, t, out) -> x0`; affine in `out`.
        from_x0: `(path, x_t, t, x0) -> out`.
    """

    to_x0: Callable[[Path, Any, Any, Any], Any]
    from_x0: Callable[[Path, Any, Any, Any], Any]


def _eps_to_x0(path: Path, x_t: Data, t: Time, out: Data) -> Data:
    alpha, sigma = scales(path, t, x_t)
    return (x_t - sigma * out) / alpha


def _v_to_x0(path: Path, x_t: Data, t: Time, out: Data) -> Data:
    alpha, sigma = scales(path, t, x_t)
    square = alpha**2 + sigma**2
    return (alpha * x_t - sigma * jnp.sqrt(square) * out) / square


def _v_from_x0(path: Path, x_t: Data, t: Time, x0: Data) -> Data:
    alpha, sigma = scales(path, t, x_t)
    return (alpha * eps(path, x_t, t, x0) - sigma * x0) / jnp.sqrt(alpha**2 + sigma**2)


def _score_to_x0(path: Path, x_t: Data, t: Time, out: Data) -> Data:
    alpha, sigma = scales(path, t, x_t)
    return (x_t + sigma**2 * out) / alpha


def _score_from_x0(path: Path, x_t: Data, t: Time, x0: Data) -> Data:
    return -eps(path, x_t, t, x0) / scales(path, t, x_t)[1]


X0 = Parametrization(lambda path, x_t, t, out: out, lambda path, x_t, t, x0: x0)
"""The network predicts the clean data."""

EPS = Parametrization(_eps_to_x0, eps)
"""The network predicts the noise (4)."""

V = Parametrization(_v_to_x0, _v_from_x0)
"""The network predicts v (6), well scaled at both ends of the path."""

SCORE = Parametrization(_score_to_x0, _score_from_x0)
"""The network predicts the score (5)."""


def uniform_grid(path: Path, num_steps: int) -> Grid:
    """`[num_steps + 1]` times from t_max down to t_min, evenly spaced."""
    return jnp.linspace(path.t_max, path.t_min, _positive(num_steps) + 1)


def log_snr_grid(path: Path, num_steps: int) -> Grid:
    """`[num_steps + 1]` times from t_max down to t_min, evenly spaced in log-SNR."""
    return _spaced(path, num_steps, lambda value: value, lambda value: value)


def karras_grid(path: Path, num_steps: int, *, rho: float = 7.0) -> Grid:
    """`[num_steps + 1]` times from t_max down to t_min, evenly spaced in (sigma / alpha)^(1 / rho)."""
    return _spaced(path, num_steps, lambda value: jnp.exp(-0.5 * value / rho), lambda root: -2 * rho * jnp.log(root))


def _spaced(path: Path, num_steps: int, to: Callable[[Any], Any], back: Callable[[Any], Any]) -> Grid:
    """Times from t_max down to t_min, evenly spaced in `to(log_snr)`, whose inverse is `back`."""
    ends = jnp.array([path.t_max, path.t_min])
    first, last = to(log_snr(path, ends))
    inner = jnp.linspace(first, last, _positive(num_steps) + 1)[1:-1]
    return jnp.concatenate([ends[:1], time_of_log_snr(path, back(inner)), ends[1:]])


def _positive(num_steps: int) -> int:
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    return num_steps
