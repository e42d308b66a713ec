r"""UniPC: a multistep prediction, put right at the next step by the x0 that is found there.

    (1)  correct:  x_t += alpha_t (1 - e^-g) (corrected - predicted),  g the length of the interval that led to t:
                   predicted is the mean of x0 that led to x_t, by `multistep.line`; corrected is that of the parabola
                   through it, the one before it and x0 = denoise(x_t, t)  (on the second step: the middle of two)
    (2)  predict:  x_s by `moves.follow` from the mean of x0, by `multistep.line`

The x0 of the uncorrected x_t serves both, so that a step costs one evaluation. This is UniP-2 with UniC-2 and
B(h) = e^h - 1 on x0. Corrections raise the order from two to three; the last x is not corrected.

Source: UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models,
https://arxiv.org/abs/2302.04867, algorithms 5 to 8.
"""

import jax.numpy as jnp

from jaxgen import paths
from jaxgen.paths import Path, Time
from jaxgen.samplers.loop import Denoiser, State, Stepper
from jaxgen.samplers.moves import follow, gap
from jaxgen.samplers.multistep import Past, line, no_past, parabola, remember, settled
from jaxgen.types import Data, PRNGKey

__all__ = ["unipc"]


def _correction(path: Path, t: Time, x0: Data, past: Past) -> Data:
    """What (1) adds to x_t: nothing on the first step."""
    (newer, older), (g, earlier_gap) = past
    predicted = line(g, newer, Past((older,), (earlier_gap,)))
    through_three = parabola(g, newer, (g, x0), (-earlier_gap, older))
    corrected = jnp.where(settled(earlier_gap), through_three, 0.5 * (newer + x0))
    share = -paths.scales(path, t, x0)[0] * jnp.expm1(-g)
    return jnp.where(settled(g), share * (corrected - predicted), 0.0)


def _step(denoise: Denoiser, path: Path, key: PRNGKey, state: State, t: Time, s: Time) -> State:
    """(1) and (2)."""
    x0, h = denoise(state.x, t), gap(path, t, s)
    x_t = state.x + _correction(path, t, x0, state.memory)
    x_s = follow(path, key, x_t, t, s, line(h, x0, state.memory))
    return State(x_s, remember(state.memory, x0, h))


def unipc() -> Stepper:
    """UniPC-2: deterministic, third order, one evaluation of the network per step.

    Source: https://arxiv.org/abs/2302.04867.
    """
    return Stepper(no_past(2), _step, 1)
