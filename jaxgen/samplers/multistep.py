r"""Memory of the x0 of earlier steps, and means of x0 over the next interval from a polynomial through them.

With u = 0 at the start of an interval of length h in half the log-SNR, the probability flow ends at `follow` from the
mean of x0(u) with weight e^u on [0, h]. Of the line through x0 and the x0' of a gap g earlier it is, to the same order,

    (1)  x0 + (h / 2) (x0 - x0') / g

and of the parabola through three points, in Newton's divided differences f[...] with nodes 0, b, c, exactly

    (2)  x0 + f[0, b] m_1 + f[0, b, c] (m_2 - b m_1),  m_k = mean of u^k:
         m_1 = (h - phi) / phi,  m_2 = (h^2 - 2 h + 2 phi) / phi,  phi = 1 - e^-h

Before the first step lies an x0 so long ago (`LONG`) that no slope comes from it: (1) is then x0 itself and (2) the
line, without a branch on the index. Where h is infinite, which is where no noise is left, x0 itself is taken.

Sources: DPM-Solver++, https://arxiv.org/abs/2211.01095; UniPC, https://arxiv.org/abs/2302.04867.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.paths import Path, Time
from jaxgen.samplers.loop import Denoiser, State, Stepper
from jaxgen.samplers.moves import gap
from jaxgen.types import Data, PRNGKey

__all__ = ["LONG", "Past", "line", "multistep", "no_past", "parabola", "remember", "settled", "uncorrected"]

LONG = 1e12
"""The length of an interval that lies behind everything."""

Length = Float[Array, ""]


class Past(NamedTuple):
    """The x0 of earlier steps, the latest first.

    Attributes:
        x0s: each like x.
        gaps: lengths; the first from the latest x0 to the present time, each other from an x0 to the one after it.
    """

    x0s: tuple[Any, ...]
    gaps: tuple[Any, ...]


def no_past(depth: int) -> Callable[[Any], Past]:
    """`x -> Past` of `depth` steps, all `LONG` ago."""
    return lambda x: Past((jnp.zeros_like(x),) * depth, (jnp.full((), LONG, jnp.float32),) * depth)


def remember(past: Past, x0: Data, h: Length) -> Past:
    """The past of the next step; the oldest x0 is forgotten."""
    return Past((x0, *past.x0s[:-1]), (jnp.clip(h, -LONG, LONG), *past.gaps[:-1]))


def settled(h: Length) -> Any:
    """Whether an interval is of ordinary length."""
    return jnp.abs(h) < LONG


def line(h: Length, x0: Data, past: Past) -> Data:
    """(1)."""
    return x0 + 0.5 * jnp.where(settled(h), h, 0.0) * (x0 - past.x0s[0]) / past.gaps[0]


def parabola(h: Length, x0: Data, second: tuple[Length, Data], third: tuple[Length, Data]) -> Data:
    """(2), with two more nodes `(u, x0 at u)`."""
    (b, x_b), (c, x_c) = second, third
    length = jnp.where(settled(h), h, 1.0)
    phi = -jnp.expm1(-length)
    m_1, m_2 = (length - phi) / phi, (length * length - 2 * length + 2 * phi) / phi
    slope = (x_b - x0) / b
    bend = ((x_c - x_b) / (c - b) - slope) / c
    return jnp.where(settled(h), x0 + slope * m_1 + bend * (m_2 - b * m_1), x0)


def uncorrected(path: Path, x_t: Data, t: Time, x0: Data, past: Past) -> Data:
    """x_t as it was predicted."""
    del path, t, x0, past
    return x_t


def multistep(
    depth: int, mean: Callable[..., Any], move: Callable[..., Any], *, correct: Callable[..., Any] = uncorrected
) -> Stepper:
    """A stepper that moves by the mean of x0 over the interval, extrapolated from the past.

    Args:
        depth: number of earlier steps it remembers.
        mean: `(h, x0, past) -> x0`.
        move: `(path, key, x_t, t, s, x0) -> x_s`, such as `moves.follow`.
        correct: `(path, x_t, t, x0, past) -> x_t`, what the x0 that is found at t tells of the step that led there.

    Returns:
        A `Stepper` of one evaluation of the network per step.
    """

    def step(denoise: Denoiser, path: Path, key: PRNGKey, state: State, t: Time, s: Time) -> State:
        x0, h = denoise(state.x, t), gap(path, t, s)
        x_t = correct(path, state.x, t, x0, state.memory)
        x_s = move(path, key, x_t, t, s, mean(h, x0, state.memory))
        return State(x_s, remember(state.memory, x0, h))

    return Stepper(no_past(depth), step, 1)
