r"""DPM-Solver++: the probability flow, solved exactly but for x0, whose course over a step is a polynomial.

    (1)  first order:          x0 is constant                                      `ddim()`; stochastic `ddpm()`
    (2)  2S, single step:      x0 of the middle of the interval in log-SNR         two evaluations
    (3)  2M, multistep:        the line through the last two x0                    `multistep.line`
    (4)  3M, multistep:        the parabola through the last three                 `multistep.parabola`
    (5)  stochastic 2M:        (3), moved by `moves.refresh` in place of `moves.follow`

The deterministic ones have the order in their name, in either direction of time. (4) is the mean of the parabola, and
of third order. Code in circulation, that of diffusers with it, halves the share of the parabola's bend, which makes it
one of second order.

Source: DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models,
https://arxiv.org/abs/2211.01095, algorithms 1 and 2 and appendix A.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen import paths
from jaxgen.paths import Path, Time
from jaxgen.samplers.loop import Denoiser, Stepper, memoryless
from jaxgen.samplers.moves import follow, land, refresh
from jaxgen.samplers.multistep import Past, line, multistep, parabola
from jaxgen.types import Data, PRNGKey

__all__ = ["dpm_solver_2m", "dpm_solver_2s", "dpm_solver_3m", "dpm_solver_sde_2m"]


def _single_step(denoise: Denoiser, path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time) -> Data:
    """(2)."""
    x0 = denoise(x_t, t)
    middle = paths.time_of_log_snr(path, jnp.asarray(0.5 * (paths.log_snr(path, t) + paths.log_snr(path, s))))
    halfway = denoise(follow(path, key, x_t, t, middle, x0), middle)
    return land(path, s, follow(path, key, x_t, t, s, halfway), x0)


def _bent(h: Float[Array, ""], x0: Data, past: Past) -> Data:
    """(4)."""
    (newer, older), (gap, earlier_gap) = past
    return parabola(h, x0, (-gap, newer), (-gap - earlier_gap, older))


def dpm_solver_2s() -> Stepper:
    """DPM-Solver++(2S): deterministic, second order, two evaluations of the network per step.

    Source: https://arxiv.org/abs/2211.01095, algorithm 1, with r = 1/2.
    """
    return memoryless(_single_step, num_evaluations=2)


def dpm_solver_2m() -> Stepper:
    """DPM-Solver++(2M): deterministic, second order, one evaluation of the network per step.

    Source: https://arxiv.org/abs/2211.01095, algorithm 2.
    """
    return multistep(1, line, follow)


def dpm_solver_3m() -> Stepper:
    """DPM-Solver++(3M): deterministic, third order, one evaluation of the network per step.

    Source: https://arxiv.org/abs/2211.01095, whose expansion of x0 is taken one term further than its algorithms do.
    """
    return multistep(2, _bent, follow)


def dpm_solver_sde_2m() -> Stepper:
    """SDE-DPM-Solver++(2M): stochastic, one evaluation of the network per step.

    Source: https://arxiv.org/abs/2211.01095, appendix A.
    """
    return multistep(1, line, refresh)
