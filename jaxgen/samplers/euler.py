r"""Euler's method for the velocity of the probability flow, on the path's own clock.

    (1)  x0 = denoise(x_t, t),  x_s = x_t + (s - t) (alpha_t' x0 + sigma_t' eps)

The sampler of flow matching. On the linear path, and wherever alpha and sigma are straight lines in t, it is DDIM.
First order, in either direction of time. Where sigma_s = 0 the result is alpha_s x0.

Source: Flow Matching for Generative Modeling, https://arxiv.org/abs/2210.02747.
"""

from jaxgen import paths
from jaxgen.paths import Path, Time
from jaxgen.samplers.loop import Denoiser, Stepper, memoryless
from jaxgen.samplers.moves import land
from jaxgen.types import Data, PRNGKey

__all__ = ["euler"]


def _step(denoise: Denoiser, path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time) -> Data:
    """(1)."""
    del key
    x0 = denoise(x_t, t)
    return land(path, s, x_t + (s - t) * paths.velocity(path, x_t, t, x0), x0)


def euler() -> Stepper:
    """Euler's method: deterministic, first order, one evaluation of the network per step.

    Source: Flow Matching for Generative Modeling, https://arxiv.org/abs/2210.02747.
    """
    return memoryless(_step, num_evaluations=1)
