"""What a denoised x0 says of x_t: noise, velocity, and the distribution of less noisy points."""

from typing import Any

import jax.numpy as jnp

from jaxgen.paths.path import Path, Time, log_snr, scales, slopes
from jaxgen.types import Data

__all__ = ["eps", "perturb", "posterior", "velocity"]


def perturb(path: Path, x0: Data, t: Time, noise: Data) -> Data:
    """x_t = alpha(t) x0 + sigma(t) noise."""
    alpha, sigma = scales(path, t, x0)
    return alpha * x0 + sigma * noise


def eps(path: Path, x_t: Data, t: Time, x0: Data) -> Data:
    """The noise in x_t: (x_t - alpha x0) / sigma."""
    alpha, sigma = scales(path, t, x_t)
    return (x_t - alpha * x0) / sigma


def velocity(path: Path, x_t: Data, t: Time, x0: Data) -> Data:
    """dx_t/dt = alpha' x0 + sigma' eps along the probability flow."""
    d_alpha, d_sigma = slopes(path, t, x_t)
    return d_alpha * x0 + d_sigma * eps(path, x_t, t, x0)


def posterior(path: Path, x_t: Data, t: Time, s: Time, x0: Data) -> tuple[Data, Any]:
    """Mean and scale of q(x_s | x_t, x_0) for s < t, without a difference of large numbers.

    With rho = SNR(t) / SNR(s): scale^2 = sigma_s^2 (1 - rho), mean = alpha_s x0 + sigma_s sqrt(rho) eps. Where sigma_s
    is 0, x_s is x0.
    """
    alpha, sigma = scales(path, s, x_t)
    log_rho = log_snr(path, t) - log_snr(path, s)
    mean = alpha * x0 + sigma * jnp.exp(0.5 * log_rho) * eps(path, x_t, t, x0)
    return mean, sigma * jnp.sqrt(-jnp.expm1(log_rho))
