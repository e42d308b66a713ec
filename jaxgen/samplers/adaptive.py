r"""Adaptive steps for any differential equation: Dormand and Prince's pair of Runge-Kutta methods, orders 5 and 4.

    (1)  k_i = f(y + h sum_{j < i} a_ij k_j, t + c_i h),  i = 1 .. 7
    (2)  y' = y + h sum_i b_i k_i,  error = h sum_i e_i k_i,  k_7 is k_1 of the next step
    (3)  size = root mean square of error / (atol + rtol max(|y|, |y'|)) over all numbers of y
    (4)  y' is taken where size < 1;  h is then multiplied by 0.9 size^(-1/5), between 0.2 and 10
         (and not above 1 after a step that was not taken)

The size of the first step is that of the source, chapter II.4, at the price of one evaluation beyond k_1.

Source: Solving Ordinary Differential Equations I, Hairer, Norsett and Wanner, 1993,
https://doi.org/10.1007/978-3-540-78862-1, chapters II.4 and II.5.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxgen.types import Scalar

__all__ = ["Solution", "dormand_prince", "solve"]

_C = np.array([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])
_A = np.array(
    [
        [0, 0, 0, 0, 0, 0],
        [1 / 5, 0, 0, 0, 0, 0],
        [3 / 40, 9 / 40, 0, 0, 0, 0],
        [44 / 45, -56 / 15, 32 / 9, 0, 0, 0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
    ]
)
_E = np.array([-71 / 57600, 0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40])


class Solution(NamedTuple):
    """What `solve` found.

    Attributes:
        y: the state at the end, NaN where the steps did not suffice.
        num_steps: steps tried, taken or not.
        num_evaluations: evaluations of the field.
    """

    y: Any
    num_steps: Any
    num_evaluations: Any


class _State(NamedTuple):
    y: Any
    slope: Any
    t: Any
    h: Any
    rejected: Any
    num_steps: Any


def _size(error: Any, y: Any, other: Any, rtol: Scalar, atol: Scalar) -> Any:
    """(3)."""
    return jnp.sqrt(jnp.mean((error / (atol + rtol * jnp.maximum(abs(y), abs(other)))) ** 2))


def _first_length(field: Callable[..., Any], y: Any, slope: Any, t: Any, end: Any, rtol: Any, atol: Any) -> Any:
    """The size of the first step, from those of y, its slope and the change of its slope."""
    direction, span = jnp.sign(end - t), abs(end - t)
    d0, d1 = _size(y, y, y, rtol, atol), _size(slope, y, y, rtol, atol)
    h0 = jnp.minimum(jnp.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1), span)
    later = field(y + h0 * direction * slope, t + h0 * direction)
    d2 = _size(later - slope, y, y, rtol, atol) / h0
    greatest = jnp.maximum(d1, d2)
    h1 = jnp.where(greatest <= 1e-15, jnp.maximum(1e-6, h0 * 1e-3), (0.01 / greatest) ** 0.2)
    return direction * jnp.minimum(jnp.minimum(100 * h0, h1), span)


def _try(field: Callable[..., Any], y: Any, slope: Any, t: Any, h: Any) -> tuple[Any, Any, Any]:
    """(1) and (2): y', its slope and the error."""
    slopes = jnp.zeros((7, *y.shape), y.dtype).at[0].set(slope)
    for i in range(1, 7):
        reached = y + h * jnp.tensordot(jnp.asarray(_A[i, :i], y.dtype), slopes[:i], 1)
        slopes = slopes.at[i].set(field(reached, t + _C[i] * h))
    return reached, slopes[6], h * jnp.tensordot(jnp.asarray(_E, y.dtype), slopes, 1)


def solve(
    field: Callable[[Any, Any], Any],
    y: Any,
    start: Scalar,
    end: Scalar,
    *,
    rtol: Scalar = 1e-5,
    atol: Scalar = 1e-5,
    max_steps: int = 10_000,
) -> Solution:
    """Carries `y` from `start` to `end`, in either direction, with steps as long as the tolerances allow.

    One step serves all of y, so that a batch takes the steps of its hardest part; `jax.vmap` gives each example its
    own. The loop is a `lax.while_loop`: it can be differentiated forwards, not backwards.

    Args:
        field: `(y, t) -> dy/dt`, on any tree of arrays.
        y: the state at `start`.
        start: time to start at.
        end: time to end at.
        rtol: error allowed in a step, relative to y (may be traced, as `atol`).
        atol: error allowed in a step, absolute.
        max_steps: steps after which the result is NaN.

    Returns:
        A `Solution`; its number of evaluations is 2 + 6 for each step.

    Source: https://doi.org/10.1007/978-3-540-78862-1.
    """
    flat, restore = ravel_pytree(y)
    start, end = jnp.asarray(start, flat.dtype), jnp.asarray(end, flat.dtype)

    def slope_of(y: Any, t: Any) -> Any:
        return ravel_pytree(field(restore(y), t))[0]

    def unfinished(state: _State) -> Any:
        return (state.t != end) & (state.num_steps < max_steps)

    def advance(state: _State) -> _State:
        last = abs(state.h) >= abs(end - state.t)
        h = jnp.where(last, end - state.t, state.h)
        y, slope, error = _try(slope_of, state.y, state.slope, state.t, h)
        size = _size(error, state.y, y, rtol, atol)
        taken = size < 1
        limit = jnp.where(taken & ~state.rejected, 10.0, 1.0)
        factor = jnp.clip(0.9 * jnp.maximum(size, 1e-10) ** -0.2, 0.2, limit)
        t = jnp.where(last, end, state.t + h)
        y, slope, t = (jnp.where(taken, new, old) for new, old in zip((y, slope, t), state[:3], strict=True))
        return _State(y, slope, t, h * jnp.where(jnp.isnan(size), 0.2, factor), ~taken, state.num_steps + 1)

    slope = slope_of(flat, start)
    h = _first_length(slope_of, flat, slope, start, end, rtol, atol)
    state = _State(flat, slope, start, h, jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    state = jax.lax.while_loop(unfinished, advance, state)
    reached = jnp.where(state.t == end, state.y, jnp.nan)
    return Solution(restore(reached), state.num_steps, 2 + 6 * state.num_steps)


def dormand_prince(
    *, rtol: Scalar = 1e-5, atol: Scalar = 1e-5, max_steps: int = 10_000
) -> Callable[[Callable[[Any, Any], Any], Any, Any], Any]:
    """`solve` in the shape of `ode.solve`: `(field, y, grid) -> y`, which needs only the ends of the grid.

    Tolerances are of a step: what is wrong at the end may be many times as much. It can be differentiated forwards,
    not backwards.

    Args:
        rtol: error allowed in a step, relative to y.
        atol: error allowed in a step, absolute.
        max_steps: steps after which the result is NaN.

    Returns:
        A function that `transforms.probability_flow` takes as its `solver`.

    Raises:
        ValueError: if `max_steps` is below 1.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")

    def solver(field: Callable[[Any, Any], Any], y: Any, grid: Float[Array, " num_times"]) -> Any:
        return solve(field, y, grid[0], grid[-1], rtol=rtol, atol=atol, max_steps=max_steps).y

    return solver
