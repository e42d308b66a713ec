r"""Data in two dimensions whose diffusion is known: mixtures of Gaussians with diagonal covariance.

    (1)  E[x | x_t] = sum_k p(k | x_t) (m_k + alpha s_k^2 / (alpha^2 s_k^2 + sigma^2) (x_t - alpha m_k))
    (2)  of one Gaussian, (x_t - alpha_t m) / sqrt(alpha_t^2 s^2 + sigma_t^2) does not change along the flow

The exact end of the flow is (2) for one component, and Heun's method with (1) for several.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.paths import Path
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import integrate
from jaxgen.types import Batch

__all__ = ["DATA", "Mixture", "analytic", "denoiser", "draw", "end_of_flow", "solved", "spread"]

TARGET_STEPS, TEACHER_STEPS = 200, 32


class Mixture(NamedTuple):
    """Weights `[k]`, means `[k, 2]` and standard deviations `[k, 2]`."""

    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray


DATA = {
    "Gaussian": Mixture(np.ones(1), np.array([[0.2, -0.1]]), np.array([[0.25, 0.6]])),
    "mixture": Mixture(
        np.array([0.3, 0.3, 0.4]),
        np.array([[-0.6, -0.3], [0.6, -0.3], [0.0, 0.45]]),
        np.array([[0.12, 0.2], [0.2, 0.12], [0.25, 0.1]]),
    ),
}


def draw(data: Mixture, key: Any, num: int) -> Batch:
    """Examples `[num, 2]`."""
    which_key, noise_key = jax.random.split(key)
    which = jax.random.choice(which_key, len(data.weights), (num,), p=jnp.asarray(data.weights))
    noise = jax.random.normal(noise_key, (num, 2))
    return Batch(jnp.asarray(data.means)[which] + jnp.asarray(data.scales)[which] * noise)


def spread(data: Mixture) -> float:
    """Standard deviation of a coordinate: the root of the mean variance."""
    mean = data.weights @ data.means
    return float(np.sqrt((data.weights @ (data.scales**2 + (data.means - mean) ** 2)).mean()))


def denoiser(data: Mixture, path: Path) -> Callable[[Any, Any], Any]:
    """The denoiser (1), `(x_t, t) -> x0`."""

    def denoise(x_t: Any, t: Any) -> Any:
        alpha, sigma = paths.scales(path, t, x_t[:, None])
        variance = alpha**2 * data.scales**2 + sigma**2
        away = x_t[:, None] - alpha * data.means
        log_share = -0.5 * (away**2 / variance + jnp.log(variance)).sum(-1) + jnp.log(data.weights)
        each = data.means + alpha * data.scales**2 / variance * away
        return (jax.nn.softmax(log_share)[..., None] * each).sum(1)

    return denoise


def end_of_flow(data: Mixture, path: Path) -> Callable[[Any, Any], Any]:
    """The exact consistency function `(x_t, t) -> x`, with one time for the batch."""
    if len(data.weights) > 1:
        return solved(data, path, TARGET_STEPS)

    def end(x_t: Any, t: Any) -> Any:
        scale = lambda t: jnp.sqrt(path.alpha(t) ** 2 * data.scales**2 + path.sigma(t) ** 2)  # noqa: E731
        left = scale(path.t_min) / path.alpha(path.t_min)
        return data.means + left / scale(t) * (x_t - path.alpha(t) * data.means)

    return end


def solved(data: Mixture, path: Path, num_steps: int) -> Callable[[Any, Any], Any]:
    """What `end_of_flow` is, by Heun's method in steps that are even in log-SNR."""

    def end(x_t: Any, t: Any) -> Any:
        first, last = paths.log_snr(path, t), paths.log_snr(path, path.t_min)
        inner = paths.time_of_log_snr(path, jnp.linspace(first, last, num_steps + 1)[1:-1])
        grid = jnp.concatenate([jnp.reshape(t, 1), inner, jnp.array([path.t_min])])
        x = integrate(heun(), denoiser(data, path), path, jax.random.key(0), x_t, grid)
        return x / path.alpha(path.t_min)

    return end


def analytic(data: Mixture, path: Path) -> Model:
    """A teacher without parameters: the exact score, and a decoder by the exact flow (a mixture's in 32 steps)."""
    end = end_of_flow(data, path) if len(data.weights) == 1 else solved(data, path, TEACHER_STEPS)

    def score(params: Any, x: Any, t: Any, cond: Any = None) -> Any:
        del params, cond
        return paths.SCORE.from_x0(path, x, t, denoiser(data, path)(x, t))

    def decode(params: Any, latent: Any, cond: Any = None) -> Any:
        del params, cond
        return end(path.sigma(path.t_max) * latent, jnp.float32(path.t_max))

    unused: Any = None
    return Model(init=lambda key, batch: ({}, ()), loss=unused, sample=unused, score=score, decode=decode)
