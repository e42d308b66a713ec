r"""The one loop: a scan over a grid of times.

    (1)  state_{i+1} = step(key_i, state_i, t_i, t_{i+1}),  i = 0 .. num_steps - 1

A step knows one interval t -> s and never the loop; the grid is an array, so that other times do not recompile, and
the time to compile does not depend on their number. Noise comes from one key for each step.

A stepper is a step that asks a denoiser. Along the probability flow x moves by

    (2)  dx = x0 dalpha + eps dsigma,  with eps = (x - alpha x0) / sigma

and what the steppers differ in is where they take x0 and eps, and how much fresh noise replaces eps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Shaped

from jaxgen.paths import Path
from jaxgen.types import Data, PRNGKey

__all__ = ["Denoiser", "State", "Stepper", "integrate", "memoryless", "scan_grid", "trajectory"]

Denoiser = Callable[[Any, Any], Any]
"""`(x_t, t) -> x0`, an estimate of E[x_0 | x_t]; `t` is one number for the whole batch."""


class State(NamedTuple):
    """Where a sampler stands.

    Attributes:
        x: x_t `[n, ...]`.
        memory: what the stepper keeps of earlier intervals; `()` where it keeps nothing.
    """

    x: Any
    memory: Any = ()


class Stepper(NamedTuple):
    """A sampler's step over one interval.

    Attributes:
        init: `x_T -> memory`.
        step: `(denoise, path, key, state, t, s) -> state`.
        num_evaluations: how often the step calls the denoiser.
    """

    init: Callable[..., Any]
    step: Callable[..., State]
    num_evaluations: int


def memoryless(step: Callable[..., Any], *, num_evaluations: int) -> Stepper:
    """A stepper of a function `(denoise, path, key, x_t, t, s) -> x_s`."""

    def advance(denoise: Denoiser, path: Path, key: PRNGKey, state: State, t: Any, s: Any) -> State:
        return State(step(denoise, path, key, state.x, t, s))

    return Stepper(lambda x: (), advance, num_evaluations)


def scan_grid(
    step: Callable[..., Any],
    key: PRNGKey,
    state: Any,
    grid: Float[Array, " num_times"],
    *,
    keep: Callable[[Any], Any] = lambda state: None,
) -> tuple[Any, Any]:
    """Runs (1).

    Args:
        step: `(key, state, t, s) -> state`.
        key: random key, split into one for each step.
        state: where to start, at `grid[0]`.
        grid: times, in the order in which they are visited.
        keep: what to keep of the state after each step; nothing by default.

    Returns:
        The state at `grid[-1]`, and what was kept, stacked along a new first axis.
    """

    def advance(state: Any, interval: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        state = step(interval[0], state, interval[1], interval[2])
        return state, keep(state)

    keys = jax.random.split(key, grid.shape[0] - 1)
    return jax.lax.scan(advance, state, (keys, grid[:-1], grid[1:]))


def _bind(stepper: Stepper, denoise: Denoiser, path: Path) -> Callable[..., State]:
    return lambda key, state, t, s: stepper.step(denoise, path, key, state, t, s)


def integrate(
    stepper: Stepper, denoise: Denoiser, path: Path, key: PRNGKey, x: Data, grid: Float[Array, " num_times"]
) -> Data:
    """Carries `x` from `grid[0]` to `grid[-1]` with `(len(grid) - 1) * stepper.num_evaluations` calls of the denoiser.

    Args:
        stepper: how to take one step.
        denoise: `(x_t, t) -> x0`.
        path: the noise path.
        key: random key; deterministic steppers ignore it.
        x: x_t `[n, ...]` at `t = grid[0]`.
        grid: times, traced: falling to sample; rising, with a deterministic stepper, to encode.

    Returns:
        x_t at `t = grid[-1]`.
    """
    return scan_grid(_bind(stepper, denoise, path), key, State(x, stepper.init(x)), grid)[0].x


def trajectory(
    stepper: Stepper, denoise: Denoiser, path: Path, key: PRNGKey, x: Data, grid: Float[Array, " num_times"]
) -> Shaped[Array, "num_steps n ..."]:
    """Like `integrate`, but returns x_t at every time of the grid after the first, `[num_steps, n, ...]`."""
    state = State(x, stepper.init(x))
    return scan_grid(_bind(stepper, denoise, path), key, state, grid, keep=lambda state: state.x)[1]
