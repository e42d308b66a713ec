r"""Langevin dynamics, plain and with a Metropolis correction.

With step size e, score s(x) = d ln p(x) / dx and noise n ~ N(0, I):

    (1)  x' = x + e s(x) + sqrt(2 e) n
    (2)  accept x' with probability min(1, p(x') q(x | x') / (p(x) q(x' | x))),  q(x' | x) = N(x + e s(x), 2 e I)

(1) alone leaves p invariant only as e -> 0; with (2) exactly, for any e. Temperature and step size may be traced.

Source: Exponential Convergence of Langevin Distributions and Their Discrete Approximations, Roberts and Tweedie, 1996,
https://doi.org/10.2307/3318418.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.distributions import sum_event
from jaxgen.kernels.kernel import Kernel
from jaxgen.types import PRNGKey, Scalar

__all__ = ["LangevinInfo", "LangevinState", "MalaInfo", "MalaState", "langevin", "mala"]

Position = Float[Array, "n ..."]


class LangevinState(NamedTuple):
    """State of the chains.

    Attributes:
        position: x `[n, ...]`.
    """

    position: Any


class LangevinInfo(NamedTuple):
    """What a step saw.

    Attributes:
        score: s(x) `[n, ...]` at the old position.
    """

    score: Any


class MalaState(NamedTuple):
    """State of the chains.

    Attributes:
        position: x `[n, ...]`.
        log_density: ln p(x) up to a constant `[n]`.
        score: s(x) `[n, ...]`.
    """

    position: Any
    log_density: Any
    score: Any


class MalaInfo(NamedTuple):
    """What a step saw.

    Attributes:
        acceptance: the probability in (2) `[n]`.
    """

    acceptance: Any


def _propose(key: PRNGKey, x: Position, score: Position, step_size: Scalar) -> Position:
    """A draw of (1)."""
    return x + step_size * score + jnp.sqrt(2 * step_size) * jax.random.normal(key, x.shape, x.dtype)


def langevin(score: Callable[[Any], Any], step_size: Scalar) -> Kernel:
    """Builds the unadjusted kernel (1).

    Args:
        score: `x [n, ...] -> like x`, s(x).
        step_size: e > 0.

    Returns:
        A `Kernel` with `LangevinState` and `LangevinInfo`. On N(0, v) its chains have the variance v / (1 - e / 2v).
    """

    def step(key: PRNGKey, state: LangevinState) -> tuple[LangevinState, LangevinInfo]:
        slope = score(state.position)
        return LangevinState(_propose(key, state.position, slope, step_size)), LangevinInfo(slope)

    return Kernel(LangevinState, step)


def mala(log_density: Callable[[Any], Any], step_size: Scalar) -> Kernel:
    """Builds the Metropolis-adjusted kernel, (1) and (2).

    Args:
        log_density: `x [n, ...] -> [n]`, ln p(x) up to a constant, in nats; differentiable, row by row.
        step_size: e > 0.

    Returns:
        A `Kernel` with `MalaState` and `MalaInfo`.
    """

    def init(position: Position) -> MalaState:
        value, pullback = jax.vjp(log_density, position)
        return MalaState(position, value, pullback(jnp.ones_like(value))[0])

    def log_proposal(new: MalaState, old: MalaState) -> Float[Array, " n"]:
        return -sum_event((new.position - old.position - step_size * old.score) ** 2) / (4 * step_size)

    def step(key: PRNGKey, state: MalaState) -> tuple[MalaState, MalaInfo]:
        noise_key, accept_key = jax.random.split(key)
        new = init(_propose(noise_key, state.position, state.score, step_size))
        log_ratio = new.log_density - state.log_density + log_proposal(state, new) - log_proposal(new, state)
        acceptance = jnp.exp(jnp.minimum(log_ratio, 0))
        accept = jax.random.uniform(accept_key, acceptance.shape) < acceptance
        choose = jax.vmap(jnp.where)
        return jax.tree.map(lambda a, b: choose(accept, a, b), new, state), MalaInfo(acceptance)

    return Kernel(init, step)
