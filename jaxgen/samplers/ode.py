r"""Runge-Kutta steps for any differential equation, and how densities change along it.

    (1)  dy/dt = f(y, t);  classical Runge-Kutta: fourth order, four evaluations per step
    (2)  d ln p_t(x_t)/dt = -div f  along the flow, where
    (3)  div f = tr(df/dx) = sum_i e_i^T (df/dx) e_i        exact: d forward derivatives
               = E_v[v^T (df/dx) v],  v in {-1, 1}^d         Hutchinson: one forward derivative for each probe v

Sources: FFJORD, https://arxiv.org/abs/1810.01367 (Hutchinson's estimate); Score-Based Generative Modeling through
Stochastic Differential Equations, https://arxiv.org/abs/2011.13456, appendix D.2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.distributions import sum_event
from jaxgen.samplers.loop import scan_grid
from jaxgen.types import Data, PerExample, PRNGKey

__all__ = ["exact_divergence", "hutchinson_divergence", "rk4", "solve", "solve_with_divergence"]

Field = Callable[[Any], Any]


def rk4(field: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A step of the classical Runge-Kutta method (1), in either direction, for `loop.scan_grid`.

    Args:
        field: `(y, t) -> dy/dt`, on any tree of arrays.

    Returns:
        `(key, y, t, s) -> y`; the key is not used.
    """

    def move(y: Any, slope: Any, dt: Any) -> Any:
        return jax.tree.map(lambda y, slope: y + dt * slope, y, slope)

    def step(key: PRNGKey, y: Any, t: Any, s: Any) -> Any:
        del key
        middle, dt = 0.5 * (t + s), s - t
        k1 = field(y, t)
        k2 = field(move(y, k1, 0.5 * dt), middle)
        k3 = field(move(y, k2, 0.5 * dt), middle)
        k4 = field(move(y, k3, dt), s)
        return move(y, jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, k1, k2, k3, k4), dt)

    return step


def _along(
    field: Field, x: Data, directions: Float[Array, "k m ..."], *, batch_size: int | None = None
) -> tuple[Data, Float[Array, "k n"]]:
    """`field(x)`, and e^T (df/dx) e for every direction e `[k, n, ...]` or `[k, 1, ...]`, `[k, n]`."""
    value, derivative = jax.linearize(field, x)

    def quadratic(e: Any) -> PerExample:
        return sum_event(e * derivative(jnp.broadcast_to(e, x.shape)))

    return value, jax.lax.map(quadratic, directions, batch_size=batch_size)


def exact_divergence(field: Field, x: Data) -> tuple[Data, PerExample]:
    """The field and its divergence (3), exactly, with d forward derivatives.

    Args:
        field: a function from `[n, ...]` to `[n, ...]` that treats the examples one by one.
        x: where, `[n, ...]`.

    Returns:
        `field(x)` and its divergence `[n]`.
    """
    basis = jnp.eye(x[0].size, dtype=x.dtype).reshape(-1, 1, *x.shape[1:])
    value, diagonal = _along(field, x, basis, batch_size=min(64, x[0].size))
    return value, diagonal.sum(0)


def hutchinson_divergence(field: Field, x: Data, probes: Float[Array, "k n ..."]) -> tuple[Data, PerExample]:
    """The field and an unbiased estimate of its divergence (3).

    Args:
        field: a function from `[n, ...]` to `[n, ...]` that treats the examples one by one.
        x: where, `[n, ...]`.
        probes: directions `[k, n, ...]` of mean 0 and covariance I, such as signs.

    Returns:
        `field(x)` and the estimate `[n]`, the mean over the probes.
    """
    value, estimates = _along(field, x, probes)
    return value, estimates.mean(0)


def solve(field: Callable[[Any, Any], Any], y: Any, grid: Float[Array, " num_times"], *, remat: bool = False) -> Any:
    """Carries `y` from `grid[0]` to `grid[-1]` with one step of (1) for each interval.

    Args:
        field: `(y, t) -> dy/dt`, on any tree of arrays.
        y: the state at `grid[0]`.
        grid: times, in the order in which they are visited.
        remat: compute each step again when differentiating backward, which then remembers the states between steps and
            what is inside of one step, in place of what is inside of all. Exact, unlike the adjoint equation.

    Returns:
        The state at `grid[-1]`.
    """
    step = rk4(field)
    step = jax.checkpoint(step, prevent_cse=False) if remat else step
    return scan_grid(step, jax.random.key(0), y, grid)[0]


def solve_with_divergence(
    field: Callable[[Any, Any], Any],
    x: Data,
    grid: Float[Array, " num_times"],
    divergence: Callable[[Field, Any], tuple[Any, Any]] = exact_divergence,
    solver: Callable[..., Any] = solve,
) -> tuple[Data, PerExample]:
    """Carries `x` along the flow together with the integral of div f, which is -(change of ln p) by (2).

    Args:
        field: `(x, t) -> dx/dt`.
        x: where to start, `[n, ...]`.
        grid: times, in the order in which they are visited.
        divergence: `(f, x) -> (f(x), div f [n])`.
        solver: `(field, y, grid) -> y`: `solve`, or what `adaptive.dormand_prince` returns.

    Returns:
        x at `grid[-1]`, and the integral `[n]`.
    """

    def augmented(state: tuple[Data, PerExample], t: Any) -> tuple[Data, PerExample]:
        return divergence(lambda x: field(x, t), state[0])

    return solver(augmented, (x, jnp.zeros(x.shape[0])), grid)
