"""The variational bound of a denoiser in continuous time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.distributions import sum_event
from jaxgen.paths import views
from jaxgen.paths.path import Path, log_snr, time_of_log_snr
from jaxgen.paths.times import stratified_mean
from jaxgen.types import Data, PerExample, PRNGKey

__all__ = ["variational_bound"]


def variational_bound(
    path: Path, denoise: Callable[[Any, Any], Any], key: PRNGKey, x: Data, *, num_times: int
) -> PerExample:
    """An unbiased estimate of the bound on ln p(x) of the reverse process in continuous time, in nats.

    -KL(q(x_T|x) || N(0, sigma(T)^2 I)) + E ln N(x; x_0 / alpha, sigma^2 / alpha^2 at t_min)
    - 1/2 int |eps - eps(x_t, t)|^2 dlambda, with lambda = log_snr(t) from t_max to t_min.

    It holds for any denoiser; where that is exact, the bound is tight but for the ends of the path.

    Args:
        path: the noise path.
        denoise: `(x_t, t [n]) -> x0`.
        key: random key.
        x: data `[n, ...]`.
        num_times: evaluations of the denoiser; one value of lambda in each of as many equal parts of its range.

    Returns:
        `[n]`. The values of lambda of one batch are one stratified draw, so that rows are not quite independent.

    Source: Variational Diffusion Models, https://arxiv.org/abs/2107.00630, equations 11 to 17.
    """
    time_key, noise_key = jax.random.split(key)
    lowest, highest = log_snr(path, path.t_max), log_snr(path, path.t_min)

    def error(key: PRNGKey, share: PerExample) -> PerExample:
        t = time_of_log_snr(path, lowest + (highest - lowest) * share)
        noise = jax.random.normal(key, x.shape)
        x_t = views.perturb(path, x, t, noise)
        return sum_event((noise - views.eps(path, x_t, t, denoise(x_t, t))) ** 2)

    errors = stratified_mean(error, time_key, noise_key, x.shape[0], num_parts=num_times)
    prior = 0.5 * jnp.exp(lowest) * sum_event(x**2)
    reconstruction = 0.5 * sum_event(jnp.ones_like(x)) * (highest - jnp.log(2 * jnp.pi) - 1)
    return reconstruction - prior - 0.5 * (highest - lowest) * errors
