r"""Which noise is paired with which data: (x_0, eps) need not be independent, as long as each keeps its distribution.

    (1)  independent:        p(x_0) N(eps; 0, I)
    (2)  optimal transport:  within a batch, the permutation pi that minimises sum_i |x_i - eps_pi(i)|^2
    (3)  reflow:             (F(z), z), z ~ N(0, I), with F a model that carries noise to data

Straighter paths are followed in fewer steps. In (2) the noise is permuted and never the data, so that labels stay
with their data; in (3) the data is the teacher's, and of the batch only the condition is used.

Sources: Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport,
https://arxiv.org/abs/2302.00482 (2); Flow Straight and Fast, https://arxiv.org/abs/2209.03003 (3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxgen.core import Model
from jaxgen.types import Batch, Carry, Cond, Data, PRNGKey

__all__ = ["Coupling", "assignment", "independent_coupling", "optimal_transport_coupling", "reflow_coupling"]


class Coupling(NamedTuple):
    """How data and noise are paired.

    Attributes:
        init: `(key, batch) -> carry`, what the coupling needs beside the batch; `()` for nothing.
        pair: `(carry, key, batch) -> (x_0, noise)`, both `[n, ...]`.
    """

    init: Callable[[Any, Batch], Carry]
    pair: Callable[[Carry, Any, Batch], tuple[Any, Any]]


def _nothing(key: PRNGKey, batch: Batch) -> Carry:
    del key, batch
    return ()


def independent_coupling() -> Coupling:
    """The data of the batch, each with fresh noise (1)."""

    def pair(carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Data, Data]:
        del carry
        return batch.x, jax.random.normal(key, batch.x.shape)

    return Coupling(_nothing, pair)


def _differs(cond: Cond, num: int) -> Any:
    """`[n, n]`: whether examples i and j are conditioned on different things."""
    differs = jnp.zeros((num, num), bool)
    for leaf in jax.tree.leaves(cond):
        rows = leaf.reshape(num, -1)
        differs = differs | (rows[:, None] != rows[None]).any(-1)
    return differs


def assignment(cost: Float[Array, "n n"]) -> Int[Array, " n"]:
    """The permutation pi that minimises sum_i cost[i, pi(i)], exactly, in time n^3; what is not a number counts as 0.

    Source: optax.assignment.hungarian_algorithm,
    https://optax.readthedocs.io/en/latest/api/assignment.html.
    """
    rows, columns = optax.assignment.hungarian_algorithm(jnp.nan_to_num(cost))
    return jnp.zeros_like(columns).at[rows].set(columns)


def optimal_transport_coupling(*, within_condition: bool = True) -> Coupling:
    """The data of the batch, each with noise that was chosen among n draws so that the batch moves least (2).

    Over data and noise together each keeps its distribution; given a condition that is so only when the noise is
    chosen among the draws of that condition, as it is by default. A batch whose conditions all differ is then coupled
    independently. On several devices under `jax.pmap` each device couples its own part of the batch.

    Args:
        within_condition: permute noise only among examples of equal condition; `False` for models that ignore it.

    Returns:
        A `Coupling`.

    Source: https://arxiv.org/abs/2302.00482, section 3.2.4; on conditions, The Curse of Conditions,
    https://arxiv.org/abs/2503.10636.
    """

    def pair(carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Data, Data]:
        del carry
        noise = jax.random.normal(key, batch.x.shape)
        num = batch.x.shape[0]
        cost = -batch.x.reshape(num, -1) @ noise.reshape(num, -1).T  # half of |x - eps|^2, up to sums over one side
        if within_condition:
            # Undoing m forbidden pairs costs at most m times the range of the others, so none is ever worth it.
            cost = cost + 2 * (cost.max() - cost.min()) * _differs(batch.cond, num)
        return batch.x, noise[assignment(cost)]

    return Coupling(_nothing, pair)


def reflow_coupling(teacher: Model) -> Coupling:
    """The teacher's data and the latents it came from (3): a second training on these pairs straightens the flow.

    The teacher's parameters lie in the carry, where `teaching.with_teacher` puts them; its solver runs in every
    training step.

    Args:
        teacher: a model whose `decode` is deterministic, of latents N(0, I) that are like the data.

    Returns:
        A `Coupling`.

    Raises:
        ValueError: if the teacher has no `decode`.

    Source: Flow Straight and Fast, https://arxiv.org/abs/2209.03003, section 2.2.
    """
    if teacher.decode is None:
        raise ValueError("reflow_coupling needs a teacher with decode, and it is None")
    decode = teacher.decode

    def init(key: PRNGKey, batch: Batch) -> Carry:
        return {"teacher": teacher.init(key, batch)[0]}

    def pair(carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Data, Data]:
        noise = jax.random.normal(key, batch.x.shape)
        return decode(carry["teacher"], noise, batch.cond), noise

    return Coupling(init, pair)
