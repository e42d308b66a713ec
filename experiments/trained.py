"""A trained model: a run and the parameters of one of its checkpoints, as `sample` and `evaluate` want it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import checkpoints, runs
from experiments.data import Split
from experiments.errors import UserError
from jaxgen.core import Model
from jaxgen.parallel import Placement
from jaxgen.types import Params

__all__ = [
    "CHECKPOINT_HELP",
    "PARALLEL_HELP",
    "SET_HELP",
    "Trained",
    "conditional",
    "draw",
    "open_trained",
    "over_batches",
    "stems",
]

CHECKPOINT_HELP = "which checkpoint: newest (that is whole), best (lowest validation loss), or a step"
PARALLEL_HELP = "how to use the devices for sampling: jit, pmap or mesh; pmap where there is more than one device"

SET_HELP = "other values for fields that only sampling and evaluation read, such as num_evaluations=10"

_BATCH = 250
"""Examples at a time; the last batch is filled up, so that one shape is compiled."""


class Trained(NamedTuple):
    """A run and its trained parameters.

    Attributes:
        run: the run.
        step: number of training steps behind the parameters.
        params: the moving average of the parameters.
    """

    run: runs.Run
    step: int
    params: Params


def open_trained(directory: str, checkpoint: str = "newest", changes: Sequence[str] = ()) -> Trained:
    """Opens a run directory and reads a checkpoint.

    Args:
        directory: the run directory.
        checkpoint: "newest" (that is whole), "best" (lowest validation loss), or the number of a step.
        changes: `FIELD=VALUE` for fields that only sampling and evaluation read.

    Returns:
        The run with the moving average of its parameters.

    Raises:
        UserError: if there is no run, no such checkpoint, or it is damaged.
    """
    run = runs.open_run(directory, changes)
    found = checkpoints.steps(run.directory)
    if not found:
        raise UserError(f"{directory} has no checkpoint yet: train it first")
    if checkpoint == "newest":
        state = checkpoints.restore_latest(run)
    else:
        state = _restore(run, _step(run, checkpoint, found))
    return Trained(run, int(state.step), state.ema_params)


def _step(run: runs.Run, checkpoint: str, found: list[int]) -> int:
    try:
        step = checkpoints.best_step(run.directory) if checkpoint == "best" else int(checkpoint)
    except ValueError:
        raise UserError(f"--checkpoint must be newest, best or a step, got {checkpoint!r}") from None
    except checkpoints.Damaged as error:
        raise UserError(str(error)) from error
    if step is None:
        raise UserError(f"no checkpoint in {run.directory} has a validation loss: --checkpoint newest or a step")
    if step not in found:
        raise UserError(f"{run.directory} has no checkpoint {step}; it has {', '.join(map(str, found))}")
    return step


def _restore(run: runs.Run, step: int) -> Any:
    try:
        return checkpoints.restore(run, step).state
    except checkpoints.Damaged as error:
        raise UserError(str(error)) from error


def conditional(run: runs.Run) -> bool:
    """Whether the model is conditioned on labels."""
    return bool(run.config.conditional)


def stems(changes: Sequence[str]) -> list[str]:
    """`FIELD=VALUE` as parts of the names of files; of a path only its end."""
    return [f"{name}={Path(value).name}" for name, _, value in (change.partition("=") for change in changes)]


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Repeats the last row until there are `size`."""
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def draw(
    placement: Placement, model: Model, params: Params, num: int, *, seed: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """Draws any number of samples, about 250 at a time.

    Args:
        placement: how they are laid on the devices.
        model: the model.
        params: parameters.
        num: number of samples.
        seed: seed of the noise; the same arguments on as many devices give the same samples.
        labels: `int32 [num]`, or `None`.

    Returns:
        The samples `[num, ...]`.
    """
    import jax

    sample, key = placement.sample(model), jax.random.key(seed)
    size = -(-min(num, _BATCH) // placement.num_devices) * placement.num_devices
    parts = []
    for index in range(-(-num // size)):
        rows = None if labels is None else _filled(labels[index * size : (index + 1) * size], size)
        parts.append(np.asarray(sample(params, jax.random.fold_in(key, index), size, rows)))
    return np.concatenate(parts)[:num]


def over_batches(
    function: Callable[..., Any], params: Params, split: Split, *, seed: int, options: dict[str, str] | None = None
) -> Any:
    """Applies a function of examples to all of a split, at most 250 at a time.

    Args:
        function: `(params, key, x, cond) -> tree of [n, ...]`; compiled here, once.
        params: parameters.
        split: examples and labels (or `None`).
        seed: seed of the noise, another for each batch.
        options: compiler options.

    Returns:
        The results of all examples, as NumPy arrays.
    """
    import jax

    compiled = jax.jit(function, compiler_options=options)
    key, size, num = jax.random.key(seed), min(len(split.x), _BATCH), len(split.x)
    parts = []
    for index in range(-(-num // size)):
        rows = slice(index * size, (index + 1) * size)
        cond = None if split.cond is None else _filled(split.cond[rows], size)
        parts.append(compiled(params, jax.random.fold_in(key, index), _filled(split.x[rows], size), cond))
    return jax.tree.map(lambda *pieces: np.concatenate([np.asarray(piece) for piece in pieces])[:num], *parts)
