"""Checkpoints of the whole training state, that survive being killed and know when they are damaged.

    checkpoints/STEP/state     the whole `TrainState` in the canonical global view, written by orbax
    checkpoints/STEP/meta.json the config, the validation loss, a digest (type, shape, SHA-256) of every leaf

`experiments.integrity` seals the files with digests and finds damage; the digests of the leaves are compared with what
orbax restored, which would cast another type without a word.
"""

import contextlib
import dataclasses
import functools
import hashlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import integrity, runs
from experiments.errors import UserError
from experiments.integrity import Damaged, clean, steps
from jaxgen import core
from jaxgen.core import TrainState

__all__ = ["Damaged", "abstract_state", "best_step", "clean", "read_meta", "restore", "restore_latest", "save", "steps"]


class Loaded(NamedTuple):
    """A checkpoint that was read and found whole.

    Attributes:
        state: the state in canonical host form (NumPy arrays; the key as a JAX key).
        config: the config's fields at that time.
        valid_loss: loss on the validation part, or `None`.
    """

    state: TrainState
    config: dict[str, Any]
    valid_loss: float | None


def best_step(directory: str | Path) -> int | None:
    """The checkpoint with the lowest validation loss; `None` if no checkpoint has one."""
    losses = {}
    for step in steps(directory):
        with contextlib.suppress(Damaged):
            losses[step] = read_meta(directory, step)["valid_loss"]
    known = [(loss, step) for step, loss in losses.items() if loss is not None]
    return min(known)[1] if known else None


def abstract_state(run: runs.Run) -> TrainState:
    """Shapes and types of the run's state in the global view."""
    from experiments import data

    model, tx = run.experiment.model, run.experiment.tx
    batch = data.batch(run.dataset, run.config.seed, 0, run.config.batch_size)
    return jax.eval_shape(functools.partial(core.init_state, model, tx), jax.random.key(run.config.seed), batch)


def save(run: runs.Run, state: TrainState, *, valid_loss: float | None = None) -> None:
    """Writes a checkpoint, then removes those that are neither the `keep` newest nor the best.

    Args:
        run: the run.
        state: the whole state in canonical host form.
        valid_loss: its loss on the validation part, which decides what is best.

    Raises:
        UserError: if the directory cannot be written (a full disk, say).
    """
    raw, step = jax.tree.map(_raw, state), int(state.step)
    meta = {
        "step": step,
        "config": dataclasses.asdict(run.config),
        "valid_loss": valid_loss if valid_loss is not None and np.isfinite(valid_loss) else None,
        "leaves": _leaf_digests(raw),
    }
    try:
        integrity.remove(run.directory, step)
        path = integrity.part(run.directory, step)
        _orbax_save(path / "state", raw)
        runs.write_json(path / "meta.json", meta)
        integrity.seal(run.directory, step)
        _prune(run.directory, run.config.keep)
    except OSError as error:
        raise UserError(f"cannot write checkpoint {step} to {run.directory}: {error.strerror or error}") from error


def restore(run: runs.Run, step: int) -> Loaded:
    """Reads one checkpoint.

    Args:
        run: the run.
        step: one of `steps(run.directory)`.

    Returns:
        The state in canonical host form, and what was saved with it.

    Raises:
        Damaged: if it is not what was written.
        UserError: if it is whole but is not a state of this run's model.
    """
    integrity.verify(run.directory, step)
    meta = read_meta(run.directory, step)
    template = abstract_state(run)
    target = jax.tree.map(_empty, template)
    _check_fits(run, step, meta["leaves"], _leaf_types(target))
    raw = _orbax_restore(integrity.root(run.directory) / str(step) / "state", target)
    if _leaf_digests(raw) != meta["leaves"]:
        raise Damaged(f"checkpoint {step} in {run.directory}: a restored array is not the one that was saved")
    return Loaded(jax.tree.map(_as_key, template, raw), meta["config"], meta["valid_loss"])


def restore_latest(run: runs.Run) -> TrainState:
    """Reads the newest whole checkpoint; names damaged ones on stderr and passes over them.

    Args:
        run: the run.

    Returns:
        The state in canonical host form (NumPy arrays; the key as a JAX key).

    Raises:
        UserError: if there is no whole checkpoint.
    """
    for step in reversed(steps(run.directory)):
        try:
            return restore(run, step).state
        except Damaged as error:
            print(f"warning: {error}; using the one before", file=sys.stderr)
    raise UserError(f"{run.directory} has no checkpoint that can be restored")


def read_meta(directory: str | Path, step: int) -> dict[str, Any]:
    """What stands beside a state: `config`, `valid_loss`, and `leaves` with type, shape and digest by path.

    Raises:
        Damaged: if it cannot be read.
    """
    try:
        meta = runs.read_json(integrity.root(directory) / str(step) / "meta.json")
        return {field: meta[field] for field in ("config", "valid_loss", "leaves")}
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"checkpoint {step} in {directory} is damaged: {error}") from error


def _prune(directory: str | Path, keep: int) -> None:
    found = steps(directory)
    for step in set(found) - set(found[-keep:]) - {best_step(directory)}:
        integrity.remove(directory, step)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: Any) -> np.ndarray:
    """A leaf as a NumPy array; a key becomes its data."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _empty(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """An array like a raw leaf, to restore into."""
    data = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return np.empty(data.shape, data.dtype)


def _as_key(template: jax.ShapeDtypeStruct, leaf: np.ndarray) -> Any:
    if not _is_key(template):
        return leaf
    impl = jax.random.key_impl(jnp.empty(template.shape, template.dtype))
    return jax.random.wrap_key_data(jnp.asarray(leaf), impl=impl)


def _leaf_types(tree: Any) -> dict[str, list[Any]]:
    """Type and shape of every leaf by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): [str(leaf.dtype), list(leaf.shape)] for path, leaf in leaves}


def _leaf_digests(tree: Any) -> dict[str, list[Any]]:
    """Type, shape and SHA-256 of every leaf by its path."""
    contents = jax.tree_util.tree_leaves_with_path(tree)
    hashes = {jax.tree_util.keystr(path): hashlib.sha256(_bytes(leaf)).hexdigest() for path, leaf in contents}
    return {path: [*types, hashes[path]] for path, types in _leaf_types(tree).items()}


def _bytes(leaf: np.ndarray) -> memoryview:
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data


def _check_fits(run: runs.Run, step: int, saved: dict[str, list[Any]], built: dict[str, list[Any]]) -> None:
    for path in sorted(saved.keys() | built.keys()):
        old, new = saved.get(path, ["nothing"])[:2], built.get(path, ["nothing"])
        if old != new:
            what = f"{path} is {_typed(old)} there and {_typed(new)} in the model"
            raise UserError(f"checkpoint {step} in {run.directory} does not fit config {run.config_name}: {what}")


def _typed(leaf: list[Any]) -> str:
    return " ".join(str(part) for part in leaf)


@contextlib.contextmanager
def _checkpointer() -> Iterator[Any]:
    """Orbax for one tree of arrays; quiet, and for this process alone, since every process holds the whole state."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    import orbax.checkpoint as ocp

    me = jax.process_index()
    alone = {"primary_host": me, "active_processes": {me}, "barrier_sync_key_prefix": str(me)}
    options = ocp.options.MultiprocessingOptions(**alone)
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        yield checkpointer


def _orbax_save(path: Path, state: Any) -> None:
    import orbax.checkpoint as ocp

    with _checkpointer() as checkpointer:
        checkpointer.save(path, args=ocp.args.StandardSave(state))


def _orbax_restore(path: Path, target: Any) -> Any:
    import orbax.checkpoint as ocp

    with _checkpointer() as checkpointer:
        return checkpointer.restore(path, args=ocp.args.StandardRestore(target))
