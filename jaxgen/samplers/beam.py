r"""Beam search: the most probable sequences among a few that are kept, by the cached step of `decode`.

Of every one of n searches, b sequences are kept. At position i, with l(x_0 .. x_i) = sum_{j <= i} ln p(x_j | x_0 ..):

    (1)  the b largest l among all continuations of the b sequences by one token
    (2)  at the end they are ordered by l / length^a, the length up to the first end token

The caches follow their sequences, when the next step begins: the loop is that of `decode`, whose elements are beams
here. With b as large as the number of sequences, the search is exhaustive.

Source: Google's Neural Machine Translation System, https://arxiv.org/abs/1609.08144, section 7, with the length itself
instead of (5 + length) / 6.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from jaxgen.samplers import decode
from jaxgen.samplers.decode import Step

__all__ = ["beam_search"]


class _Beams(NamedTuple):
    """The sequences that are kept at a position.

    Attributes:
        token: their last tokens, `[n, b]`.
        parent: which of the sequences of the position before they go on from, `[n, b]`.
        log_prob: their l, `[n, b]`.
        x: the sequences so far, `[n, b, length]`.
    """

    token: Any
    parent: Any
    log_prob: Any
    x: Any


def beam_search(
    step: Step,
    state: Any,
    *,
    num: int,
    length: int,
    num_beams: int,
    end: int | None = None,
    length_power: float = 0.0,
) -> tuple[Integer[Array, "n beams positions"], Float[Array, "n beams"]]:
    """Searches by (1) and (2), in the one loop of positions.

    Args:
        step: `(state, x_{i-1} [n b], i) -> (state, logits [n b, levels])`; after an end token, all mass is on it.
        state: before the first position, for `num * num_beams` sequences, those of one search side by side; every leaf
            has them as its first axis.
        num: n, the number of searches.
        length: positions.
        num_beams: b.
        end: the end token, if there is one.
        length_power: a of (2), 0 or more.

    Returns:
        Sequences `[n, b, length]`, the best first, and their l.

    Raises:
        ValueError: if `num_beams` or `length` is below 1, or `length_power` below 0.
    """
    if num_beams < 1 or length < 1 or length_power < 0:
        raise ValueError(
            f"expected num_beams and length of at least 1 and length_power of at least 0, got {num_beams}, {length} "
            f"and {length_power}"
        )

    def follow(state: Any, beams: _Beams, position: Any) -> tuple[Any, Any]:
        rows = (jnp.arange(num)[:, None] * num_beams + beams.parent).reshape(-1)
        state = jax.tree.map(lambda leaf: leaf[rows], state)
        state, logits = step(state, beams.token.reshape(-1), position)
        return state, (logits.reshape(num, num_beams, -1), beams)

    def pick(output: tuple[Any, _Beams], inputs: tuple[Any, None]) -> tuple[_Beams, None]:
        logits, before = output
        total = before.log_prob[..., None] + jax.nn.log_softmax(logits)
        log_prob, index = jax.lax.top_k(total.reshape(num, -1), num_beams)
        parent, token = jnp.divmod(index, logits.shape[-1])
        x = jnp.take_along_axis(before.x, parent[..., None], axis=1).at[:, :, inputs[0]].set(token)
        return _Beams(token, parent, log_prob, x), None

    own = jnp.tile(jnp.arange(num_beams), (num, 1))
    first = jnp.where(own == 0, 0.0, -jnp.inf)  # of b equal sequences, one
    start = _Beams(jnp.zeros_like(own), own, first, jnp.zeros((num, num_beams, length), jnp.int32))
    last, _ = decode.scan_positions(follow, pick, state, start, None, length)
    return _ranked(last.x, last.log_prob, end, length_power)


def _ranked(x: Any, log_prob: Any, end: int | None, length_power: float) -> tuple[Any, Any]:
    """(2)."""
    before_end = jnp.zeros(x.shape[:2], jnp.int32) + x.shape[2] if end is None else (x != end).sum(-1) + 1
    score = log_prob / jnp.minimum(before_end, x.shape[2]) ** length_power
    order = jnp.argsort(-score, axis=1)
    return jnp.take_along_axis(x, order[..., None], axis=1), jnp.take_along_axis(log_prob, order, axis=1)
