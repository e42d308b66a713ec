r"""Ancestral sampling: a draw from q(x_s | x_t, x_0) at the denoiser's estimate of x_0.

    (1)  x0 = denoise(x_t, t),  x_s ~ q(x_s | x_t, x0)

The stochastic process of the original paper, at any grid of times. It is also the first-order stochastic
DPM-Solver++, and DDIM with eta = 1.

Source: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239, algorithm 2.
"""

from jaxgen.paths import Path, Time
from jaxgen.samplers.loop import Denoiser, Stepper, memoryless
from jaxgen.samplers.moves import refresh
from jaxgen.types import Data, PRNGKey

__all__ = ["ddpm"]


def _step(denoise: Denoiser, path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time) -> Data:
    """(1)."""
    return refresh(path, key, x_t, t, s, denoise(x_t, t))


def ddpm() -> Stepper:
    """Ancestral sampling: stochastic, one evaluation of the network per step.

    Source: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239.
    """
    return memoryless(_step, num_evaluations=1)
