r"""Heun's method: the trapezoid rule for the probability flow dx = x0 dalpha + eps dsigma.

    (1)  x0 = denoise(x_t, t),  eps = (x_t - alpha_t x0) / sigma_t,  x_s = alpha_s x0 + sigma_s eps
    (2)  x0' = denoise(x_s, s),  eps' = (x_s - alpha_s x0') / sigma_s
    (3)  x_s' = x_t + (alpha_s - alpha_t) (x0 + x0') / 2 + (sigma_s - sigma_t) (eps + eps') / 2
              = x_s + (alpha_s sigma_t / sigma_s - alpha_t) (x0' - x0) / 2

Second order in either direction of time, on any path and clock: with alpha = 1 it is the method of the source, on a
linear path Heun's method for the flow. Where sigma_s = 0 the result is (1), which is alpha_s x0. `edm_heun` first goes
back a little way to more noise, as `churned` has it.

Source: Elucidating the Design Space of Diffusion-Based Generative Models, https://arxiv.org/abs/2206.00364,
algorithms 1 and 2.
"""

import jax.numpy as jnp

from jaxgen import paths
from jaxgen.paths import Path, Time
from jaxgen.samplers.churn import churned
from jaxgen.samplers.loop import Denoiser, Stepper, memoryless
from jaxgen.samplers.moves import follow, land
from jaxgen.types import Data, PRNGKey, Scalar

__all__ = ["edm_heun", "heun"]


def _step(denoise: Denoiser, path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time) -> Data:
    """(1) to (3)."""
    x0 = denoise(x_t, t)
    x_s = follow(path, key, x_t, t, s, x0)
    change = denoise(x_s, s) - x0
    (alpha_t, sigma_t), (alpha_s, sigma_s) = paths.scales(path, t, x_t), paths.scales(path, s, x_t)
    ratio = sigma_t / jnp.where(sigma_s > 0, sigma_s, 1.0)  # finite where `land` drops it: its gradient is not dropped
    return land(path, s, x_s + 0.5 * (alpha_s * ratio - alpha_t) * change, x0)


def heun() -> Stepper:
    """Heun's method: deterministic, second order, two evaluations of the network per step.

    Source: Elucidating the Design Space of Diffusion-Based Generative Models, https://arxiv.org/abs/2206.00364.
    """
    return memoryless(_step, num_evaluations=2)


def edm_heun(
    *, churn: Scalar, churn_min: Scalar = 0.0, churn_max: Scalar = float("inf"), noise: Scalar = 1.0
) -> Stepper:
    """Heun's method after a `churned` start: stochastic, two evaluations of the network per step.

    Args:
        churn: S_churn / num_steps; 0 is `heun()`.
        churn_min: S_min, the least sigma / alpha at which noise is added.
        churn_max: S_max, the greatest.
        noise: S_noise, scale of the noise.

    Returns:
        A `Stepper`.

    Source: https://arxiv.org/abs/2206.00364, algorithm 2.
    """
    return churned(heun(), churn=churn, churn_min=churn_min, churn_max=churn_max, noise=noise)
