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
from jaxgen.samplers.loop import Stepper
from jaxgen.samplers.moves import follow
from jaxgen.samplers.multistep import Past, line, multistep, parabola, settled
from jaxgen.types import Data

__all__ = ["unipc"]


def _corrected(path: Path, x_t: Data, t: Time, x0: Data, past: Past) -> Data:
    """(1); x_t itself on the first step."""
    (newer, older), (g, earlier_gap) = past
    predicted = line(g, newer, Past((older,), (earlier_gap,)))
    through_three = parabola(g, newer, (g, x0), (-earlier_gap, older))
    corrected = jnp.where(settled(earlier_gap), through_three, 0.5 * (newer + x0))
    share = -paths.scales(path, t, x0)[0] * jnp.expm1(-g)
    return x_t + jnp.where(settled(g), share * (corrected - predicted), 0.0)


def unipc() -> Stepper:
    """UniPC-2: deterministic, third order, one evaluation of the network per step.

    Source: https://arxiv.org/abs/2302.04867.
    """
    return multistep(2, line, follow, correct=_corrected)
