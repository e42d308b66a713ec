r"""Euler's and Maruyama's method for the stochastic process that undoes the path.

    (1)  the path is dx = f x dt + g dw,  f = alpha' / alpha,  g^2 = 2 sigma sigma' - 2 f sigma^2
    (2)  undone by dx = (f x - g^2 score) dt + g dw, with time running down
    (3)  x_s = x_t + (s - t) (f x_t - g^2 score) + g sqrt(t - s) z,  z ~ N(0, I)

Order 1 in distribution. Where sigma_s = 0 the result is alpha_s x0.

Source: Score-Based Generative Modeling through Stochastic Differential Equations, https://arxiv.org/abs/2011.13456,
equation 6.
"""

import jax
import jax.numpy as jnp

from jaxgen import paths
from jaxgen.paths import Path, Time
from jaxgen.samplers.loop import Denoiser, Stepper, memoryless
from jaxgen.samplers.moves import land
from jaxgen.types import Data, PRNGKey

__all__ = ["euler_maruyama"]


def _step(denoise: Denoiser, path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time) -> Data:
    """(1) to (3)."""
    x0 = denoise(x_t, t)
    (alpha, sigma), (d_alpha, d_sigma) = paths.scales(path, t, x_t), paths.slopes(path, t, x_t)
    drift = d_alpha / alpha
    diffusion = 2 * sigma * (d_sigma - drift * sigma)
    mean = x_t + (s - t) * (drift * x_t - diffusion * paths.SCORE.from_x0(path, x_t, t, x0))
    return land(path, s, mean + jnp.sqrt(diffusion * (t - s)) * jax.random.normal(key, x_t.shape), x0)


def euler_maruyama() -> Stepper:
    """Euler's and Maruyama's method: stochastic, one evaluation of the network per step.

    Source: https://arxiv.org/abs/2011.13456, equation 6.
    """
    return memoryless(_step, num_evaluations=1)
