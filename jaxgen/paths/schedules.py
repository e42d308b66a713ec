"""The paths of the field: variance preserving, exploding and between, linear, and by a table of betas."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.paths.path import Path, Time

__all__ = [
    "cosine",
    "ddpm",
    "discrete",
    "karras",
    "linear",
    "of_log_snr",
    "sub_variance_preserving",
    "variance_exploding",
    "variance_preserving",
]


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
    area = _area(beta_min, beta_max, t_min)
    return Path(lambda t: jnp.exp(-0.5 * area(t)), lambda t: jnp.sqrt(-jnp.expm1(-area(t))), t_min, 1.0)


def sub_variance_preserving(*, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> Path:
    """The path with the signal of `variance_preserving` and less noise: sigma = 1 - exp(-B), the square of its sigma.

    Args:
        beta_min: beta(0).
        beta_max: beta(1).
        t_min: the time that stands for clean data; sigma(1e-3) is 1.1e-4.

    Returns:
        A `Path`.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max and 0 < t_min < 1.

    Source: https://arxiv.org/abs/2011.13456, equation 29.
    """
    area = _area(beta_min, beta_max, t_min)
    return Path(lambda t: jnp.exp(-0.5 * area(t)), lambda t: -jnp.expm1(-area(t)), t_min, 1.0)


def _area(beta_min: float, beta_max: float, t_min: float) -> Callable[[Time], Any]:
    """B(t), the integral of a linear beta from 0 to t."""
    if not 0 < beta_min <= beta_max:
        raise ValueError(f"expected 0 < beta_min <= beta_max, got {beta_min} and {beta_max}")
    _check_inside("t_min", t_min, 1.0)
    return lambda t: beta_min * t + 0.5 * (beta_max - beta_min) * t**2


def cosine(*, margin: float = 1e-3) -> Path:
    """The variance-preserving path along a quarter circle: alpha = cos(pi t / 2), sigma = sin(pi t / 2).

    Args:
        margin: time runs from `margin` to `1 - margin`; sigma(t_min) = alpha(t_max) = 1.6 margin.

    Returns:
        A `Path`.

    Raises:
        ValueError: unless 0 < margin < 1/2.

    Source: Improved Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2102.09672, equation 17, without
    its offset s = 0.008 and its limit of 0.999 on betas: the margin keeps the path away from both of its ends.
    """
    _check_inside("margin", margin, 0.5)
    return Path(lambda t: jnp.cos(0.5 * jnp.pi * t), lambda t: jnp.sin(0.5 * jnp.pi * t), margin, 1 - margin)


def linear(*, margin: float = 1e-3) -> Path:
    """The straight line of flow matching and rectified flows: alpha = 1 - t, sigma = t.

    Args:
        margin: time runs from `margin` to `1 - margin`, where sigma and alpha are `margin`.

    Returns:
        A `Path`.

    Raises:
        ValueError: unless 0 < margin < 1/2.

    Sources: Flow Matching for Generative Modeling, https://arxiv.org/abs/2210.02747; Flow Straight and Fast,
    https://arxiv.org/abs/2209.03003. Both count time from noise to data; here, as everywhere, it runs to noise.
    """
    _check_inside("margin", margin, 0.5)
    return Path(lambda t: 1 - jnp.asarray(t), jnp.asarray, margin, 1 - margin)


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


def karras(*, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Path:
    """The variance-exploding path whose clock is the noise itself: alpha = 1, sigma = t in [sigma_min, sigma_max].

    Args:
        sigma_min: noise that stands for clean data, in units of the data.
        sigma_max: noise where sampling starts.

    Returns:
        A `Path`.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.

    Source: https://arxiv.org/abs/2206.00364, table 1.
    """
    _check_inside("sigma_min", sigma_min, sigma_max)
    return Path(jnp.ones_like, jnp.asarray, sigma_min, sigma_max)


def discrete(betas: Sequence[float]) -> Path:
    """The variance-preserving path through a table of betas, of which step i has alpha^2 = prod_{j <= i} (1 - beta_j).

    Time is the index, from 0 to len(betas) - 1; between two of them ln alpha is a straight line. Time -1 is clean data
    (alpha = 1), where some samplers end.

    Args:
        betas: variance added at each step, between 0 and 1.

    Returns:
        A `Path`.

    Raises:
        ValueError: if there are fewer than two betas, or one is not between 0 and 1.

    Source: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239, equation 4.
    """
    table = np.asarray(betas, np.float64)
    if table.ndim != 1 or len(table) < 2 or not ((table > 0) & (table < 1)).all():
        raise ValueError(f"expected two or more betas between 0 and 1, got {betas}")
    log_alphas = np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-table))]).astype(np.float32)
    index = np.arange(-1, len(table), dtype=np.float32)

    def log_alpha(t: Time) -> Any:
        return jnp.interp(t, index, log_alphas)

    def sigma(t: Time) -> Any:
        return jnp.sqrt(-jnp.expm1(2 * log_alpha(t)))

    return Path(lambda t: jnp.exp(log_alpha(t)), sigma, 0.0, float(len(table) - 1))


def ddpm(*, num_steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> Path:
    """The `discrete` path of the original paper: betas evenly spaced from `beta_min` to `beta_max`.

    Args:
        num_steps: number of betas.
        beta_min: the first.
        beta_max: the last.

    Returns:
        A `Path` whose time is the step, from 0 to `num_steps - 1`.

    Source: https://arxiv.org/abs/2006.11239, section 4.
    """
    return discrete(np.linspace(beta_min, beta_max, num_steps).tolist())


def of_log_snr(function: Callable[[Any], Any], *, t_min: float = 0.0, t_max: float = 1.0) -> Path:
    """The variance-preserving path with a given log-SNR: alpha^2 = sigmoid(function), sigma^2 = sigmoid(-function).

    Args:
        function: `t -> log_snr(t)`, falling, elementwise and differentiable; it may close over parameters that are
            being trained.
        t_min: the time that stands for clean data.
        t_max: the time of pure noise.

    Returns:
        A `Path`.

    Raises:
        ValueError: unless t_min < t_max.

    Source: Variational Diffusion Models, https://arxiv.org/abs/2107.00630, section 3.2.
    """
    if not t_min < t_max:
        raise ValueError(f"expected t_min < t_max, got {t_min} and {t_max}")

    def half(sign: int) -> Callable[[Any], Any]:
        return lambda t: jnp.exp(0.5 * jax.nn.log_sigmoid(sign * function(t)))

    return Path(half(1), half(-1), t_min, t_max)


def _check_inside(name: str, value: float, upper: float) -> None:
    if not 0 < value < upper:
        raise ValueError(f"{name} must be between 0 and {upper}, got {value}")
