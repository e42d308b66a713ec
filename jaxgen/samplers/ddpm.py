r"""Ancestral sampling: a draw from q(x_s | x_t, x_0) at the denoiser's estimate of x_0.

    (1)  x0 = denoise(x_t, t),  x_s ~ N(mean(x_t, x0), scale^2)

The stochastic process of the original paper, at any grid of times.

Source: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239, algorithm 2.
"""

import jax

from jaxgen import paths
from jaxgen.paths import Path
from jaxgen.samplers.loop import Denoiser, Stepper, memoryless
from jaxgen.types import Data, PRNGKey

__all__ = ["ddpm"]


def _step(denoise: Denoiser, path: Path, key: PRNGKey, x_t: Data, t: paths.Time, s: paths.Time) -> Data:
    """(1)."""
    mean, scale = paths.posterior(path, x_t, t, s, denoise(x_t, t))
    return mean + scale * jax.random.normal(key, x_t.shape)


def ddpm() -> Stepper:
    """Ancestral sampling: stochastic, one evaluation of the network per step.

    Source: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239.
    """
    return memoryless(_step, num_evaluations=1)
