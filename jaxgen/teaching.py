"""Handing trained parameters to a model that is about to train: as its teacher's, or as its own first ones.

A model with a teacher keeps the teacher's parameters in `carry["teacher"]`, where the train step finds them as an
argument and checkpoints hold them. Its `init` fills that place with fresh ones of the right shapes; before the first
step the trained ones are put there.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxgen import paths
from jaxgen.core import Model, TrainState
from jaxgen.paths import Path
from jaxgen.types import Carry, Cond, Data, Params

__all__ = ["averaged", "starting_from", "teacher_denoiser", "with_teacher"]


def averaged(params: Params, carry: Carry, decay: float) -> tuple[Params, Carry]:
    """The parameters that make a model's own targets, and the carry with them.

    Args:
        params: the parameters that are trained.
        carry: holds their moving average as `target`, where there is one.
        decay: d of target = d target + (1 - d) params; with 0 there is no average, and the targets are their own.
    """
    if not decay:
        return params, carry
    target = jax.lax.stop_gradient(optax.incremental_update(params, carry["target"], 1 - decay))
    return target, {**carry, "target": target}


def teacher_denoiser(teacher: Model, path: Path) -> Callable[..., Any]:
    """What the teacher takes for the data in x_t: `(params, x_t, t, cond) -> x0`, from its score.

    Raises:
        ValueError: if the teacher has no score.
    """
    if teacher.score is None:
        raise ValueError("a teacher needs a score, and it is None")
    score = teacher.score

    def denoise(params: Params, x: Data, t: Any, cond: Cond) -> Data:
        return paths.SCORE.to_x0(path, x, t, score(params, x, t, cond))

    return denoise


def _like(what: str, found: Params, expected: Params) -> Params:
    """A copy of `found`, which must have the structure, shapes and types of `expected`."""
    one: Any = jax.tree.structure(found)
    other: Any = jax.tree.structure(expected)
    if one != other:
        raise ValueError(f"{what} are a tree of another structure: expected {other}, got {one}")
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
            name = jax.tree_util.keystr(path)
            raise ValueError(
                f"{what} do not fit at {name}: expected {wanted.dtype}{wanted.shape}, got {leaf.dtype}{leaf.shape}"
            )
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), found)


def with_teacher(state: TrainState, params: Params) -> TrainState:
    """The state of a model with a teacher, which is given these parameters.

    Args:
        state: the state, as `init_state` makes it.
        params: trained parameters of the teacher (the moving average, say); they are copied.

    Returns:
        The state with `carry["teacher"]` replaced.

    Raises:
        ValueError: if the model has no teacher, or the parameters have another structure, shape or type than the
            teacher's.
    """
    carry: Any = state.carry
    if not isinstance(carry, dict) or "teacher" not in carry:
        raise ValueError("with_teacher needs the state of a model with a teacher, and its carry holds none")
    params = _like("the teacher's parameters", params, carry["teacher"])
    return state._replace(carry={**carry, "teacher": params})


def starting_from(state: TrainState, params: Params) -> TrainState:
    """The state with these parameters and moving average; a target network in the carry starts from them too.

    Args:
        state: the state before the first step.
        params: parameters of the same shapes; they are copied.

    Returns:
        The state.

    Raises:
        ValueError: if the parameters have another structure, shape or type than the model's.
    """
    own, average = (_like("the parameters to start from", params, state.params) for _ in range(2))
    carry: Any = state.carry
    if isinstance(carry, dict) and "target" in carry:
        carry = {**carry, "target": _like("the parameters to start from", params, carry["target"])}
    return state._replace(params=own, ema_params=average, carry=carry)
