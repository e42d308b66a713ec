r"""Transition matrices: how tokens of K states change, one step at a time, until nothing is left of them.

Steps are counted from 0 (data) to T. Tokens move on their own, by matrices whose rows sum to one:

    (1)  Q_t[i, j] = P(x_t = j | x_{t-1} = i),  total_t = Q_1 Q_2 .. Q_t,  total_0 = I
    (2)  P(x_{t-1} = k | x_t = j, x_0 = i) = Q_t[k, j] total_{t-1}[i, k] / total_t[i, j]
    (3)  towards a limit l, with the share m(t / T) of a masking: total_t = (1 - m) I + m 1 l^T

Source: Structured Denoising Diffusion Models in Discrete State-Spaces, https://arxiv.org/abs/2107.03006.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxgen.paths.masking import Masking, linear

__all__ = ["Transitions", "absorbing", "gaussian", "possible", "reverse", "rows", "uniform"]

Steps = Int[Array, " n"]
_POSSIBLE = 1e-30


class Transitions(NamedTuple):
    """The chain (1).

    Attributes:
        num_levels: number of values of a token of data, the first of the states.
        num_states: K, a mask included where there is one.
        num_steps: T.
        step: `t [n] -> Q_t [n, K, K]`.
        total: `t [n] -> total_t [n, K, K]`.
        limit: `() -> [K]`, the distribution that stands for x_T.
    """

    num_levels: int
    num_states: int
    num_steps: int
    step: Callable[[Any], Any]
    total: Callable[[Any], Any]
    limit: Callable[[], Any]


def absorbing(num_levels: int, num_steps: int, *, masking: Masking = linear) -> Transitions:
    """Tokens turn into a mask, the state `num_levels`, and stay there.

    Args:
        num_levels: number of values of a token.
        num_steps: T.
        masking: share of masked tokens over t / T; `linear` is the paper's beta_t = 1 / (T - t + 1).

    Returns:
        `Transitions` of `num_levels + 1` states.

    Raises:
        ValueError: if `num_levels` is below 2 or `num_steps` below 1.

    Source: https://arxiv.org/abs/2107.03006, appendix A.2.2.
    """
    _check(num_levels, num_steps)
    limit = lambda: jax.nn.one_hot(num_levels, num_levels + 1)  # noqa: E731
    return _towards(num_levels, num_steps, masking, limit)


def uniform(num_levels: int, num_steps: int, *, masking: Masking = linear) -> Transitions:
    """Tokens turn into any value with equal probability.

    Args:
        num_levels: number of values of a token.
        num_steps: T.
        masking: share of tokens that have been redrawn, over t / T.

    Returns:
        `Transitions` of `num_levels` states.

    Raises:
        ValueError: if `num_levels` is below 2 or `num_steps` below 1.

    Source: https://arxiv.org/abs/2107.03006, appendix A.2.1.
    """
    _check(num_levels, num_steps)
    return _towards(num_levels, num_steps, masking, lambda: jnp.full(num_levels, 1 / num_levels))


def gaussian(num_levels: int, num_steps: int, *, beta_min: float = 1e-4, beta_max: float = 0.02) -> Transitions:
    """Tokens move to values that are near, as a Gaussian on the levels; the limit is uniform.

    Q_t[i, j] = exp(-4 |i - j|^2 / ((K - 1)^2 beta_t)) / Z for j != i, with Z the sum of such terms over all distances
    -(K - 1) .. K - 1, and the rest stays on the diagonal; beta_t grows evenly.

    Args:
        num_levels: K, number of values of a token.
        num_steps: T.
        beta_min: beta_1.
        beta_max: beta_T.

    Returns:
        `Transitions` of K states, which hold tables of 8 T K^2 bytes. The chain forgets x_0 only in part: the bound of
        a model counts what is left.

    Raises:
        ValueError: if `num_levels` is below 2 or `num_steps` below 1; unless 0 < beta_min <= beta_max.

    Source: https://arxiv.org/abs/2107.03006, appendix A.2.3.
    """
    _check(num_levels, num_steps)
    if not 0 < beta_min <= beta_max:
        raise ValueError(f"expected 0 < beta_min <= beta_max, got {beta_min} and {beta_max}")
    steps = np.stack([_gaussian_step(num_levels, beta) for beta in np.linspace(beta_min, beta_max, num_steps)])
    totals = [np.eye(num_levels)]
    for step in steps:
        totals.append(totals[-1] @ step)
    step_table, total_table = steps.astype(np.float32), np.stack(totals).astype(np.float32)
    return Transitions(
        num_levels,
        num_levels,
        num_steps,
        lambda t: jnp.asarray(step_table)[t - 1],
        lambda t: jnp.asarray(total_table)[t],
        lambda: jnp.full(num_levels, 1 / num_levels),
    )


def _gaussian_step(num_levels: int, beta: float) -> np.ndarray:
    distances = np.arange(-(num_levels - 1), num_levels)
    weights = np.exp(-4 * (distances / (num_levels - 1)) ** 2 / beta)
    levels = np.arange(num_levels)
    matrix = (weights / weights.sum())[levels[None] - levels[:, None] + num_levels - 1]
    np.fill_diagonal(matrix, 0)
    return matrix + np.diag(1 - matrix.sum(1))


def _towards(num_levels: int, num_steps: int, masking: Masking, limit: Callable[[], Any]) -> Transitions:
    """The chain (3)."""

    def share(t: Steps) -> Float[Array, " n"]:
        return masking(t / num_steps)

    def matrix(share: Float[Array, " n"]) -> Float[Array, "n k k"]:
        share, goal = share[:, None, None], limit()
        return (1 - share) * jnp.eye(len(goal)) + share * goal

    def step(t: Steps) -> Float[Array, "n k k"]:
        return matrix((share(t) - share(t - 1)) / (1 - share(t - 1)))

    num_states = jax.eval_shape(limit).shape[0]
    return Transitions(num_levels, num_states, num_steps, step, lambda t: matrix(share(t)), limit)


def _check(num_levels: int, num_steps: int) -> None:
    if num_levels < 2:
        raise ValueError(f"num_levels must be at least 2, got {num_levels}")
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")


def rows(matrix: Float[Array, "n k k"], x: Int[Array, "n ..."]) -> Float[Array, "n ... k"]:
    """The row of each token's state, in its example's matrix."""
    return jax.vmap(lambda matrix, x: matrix[x])(matrix, x)


def reverse(
    transitions: Transitions, probabilities: Float[Array, "n ... levels"], x_t: Int[Array, "n ..."], t: Steps
) -> Float[Array, "n ... k"]:
    """The distribution of x_{t-1} given x_t, where that of x_0 given x_t is `probabilities`: a mixture of (2).

    Values of x_0 from which x_t cannot come count nothing.
    """
    step, total, before = transitions.step(t), transitions.total(t), transitions.total(t - 1)
    likelihood = rows(total.mT, x_t)[..., : transitions.num_levels]
    weight = jnp.where(likelihood > _POSSIBLE, probabilities / jnp.maximum(likelihood, _POSSIBLE), 0.0)
    return rows(step.mT, x_t) * jnp.einsum("n...l,nlk->n...k", weight, before[:, : transitions.num_levels])


def possible(transitions: Transitions, x_t: Int[Array, "n ..."], t: Steps) -> Any:
    """Whether x_t may come from each value of x_0, `[n, ..., num_levels]`."""
    return rows(transitions.total(t).mT, x_t)[..., : transitions.num_levels] > _POSSIBLE
