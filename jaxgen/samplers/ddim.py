r"""DDIM: the noise found in x_t is kept, or replaced in part by fresh noise.

    (1)  x0 = denoise(x_t, t),  eps = (x_t - alpha_t x0) / sigma_t
    (2)  x_s = alpha_s x0 + sqrt(sigma_s^2 - c^2) eps + c z,  z ~ N(0, I),  c = eta scale of q(x_s | x_t, x_0)

eta = 0 is Euler's method for dx = x0 dalpha + eps dsigma, and the first-order DPM-Solver++: first order, in either
direction of time. eta = 1 is ancestral sampling. No noise is added where s > t.

Source: Denoising Diffusion Implicit Models, https://arxiv.org/abs/2010.02502, equation 12.
"""

import jax
import jax.numpy as jnp

from jaxgen import paths
from jaxgen.paths import Path, Time
from jaxgen.samplers.loop import Denoiser, Stepper, memoryless
from jaxgen.types import Data, PRNGKey, Scalar

__all__ = ["ddim"]


def ddim(*, eta: Scalar = 0.0) -> Stepper:
    """DDIM: one evaluation of the network per step; deterministic and first order for `eta = 0`.

    Args:
        eta: share of fresh noise, from 0 to 1 (may be traced).

    Returns:
        A `Stepper`.

    Source: Denoising Diffusion Implicit Models, https://arxiv.org/abs/2010.02502.
    """

    def step(denoise: Denoiser, path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time) -> Data:
        x0 = denoise(x_t, t)
        alpha, sigma = paths.scales(path, s, x_t)
        fresh = jnp.where(s < t, eta * paths.posterior(path, x_t, t, s, x0)[1], 0.0)
        kept = jnp.sqrt(sigma**2 - fresh**2) * paths.eps(path, x_t, t, x0)
        return alpha * x0 + kept + fresh * jax.random.normal(key, x_t.shape)

    return memoryless(step, num_evaluations=1)
