"""The training loop: no host round trip per step, and no checkpoint of anything that was not found finite.

Steps are counted from the beginning of the run. At every multiple of `log_every` and of `checkpoint_every` the metrics
of the steps since then (the *window*) are fetched from the device at once and every loss is looked at. A checkpoint's
line of metrics is written before the checkpoint itself, and lines after the restored step are dropped on resuming, so
that every step is logged once however often the run was killed.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from experiments import checkpoints, data, devices, metrics_log, runs
from experiments.errors import UserError
from experiments.progress import Interrupts, Progress, say
from jaxgen.bijections import check_actnorms
from jaxgen.core import TrainState
from jaxgen.parallel import Placement
from jaxgen.types import Batch, Metrics, Params

__all__ = ["check_batch", "default_parallel", "owned", "train"]

DONE, DIVERGED, INTERRUPTED = 0, 1, 130

VALID_BATCHES = 8
"""The validation loss is an average over this many batches at most."""


class Diverged(Exception):
    """Something is no longer finite: what, and at which step."""


class Window:
    """Metrics of the steps since the last line, on the device until they are fetched."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._metrics: list[Metrics] = []
        self.restart()

    def restart(self) -> None:
        """Starts the clock again, from the steps that follow."""
        self._begin, self._timed = time.perf_counter(), 0

    def add(self, metrics: Metrics) -> None:
        """Takes the metrics of one step, without waiting for them."""
        self._metrics.append(metrics)
        self._timed += 1

    def close(self, step: int) -> dict[str, float]:
        """Fetches the window that ends at `step`: the mean of every metric, and the speed.

        Raises:
            Diverged: if a loss is not finite.
        """
        fetched = jax.device_get(self._metrics)
        seconds = time.perf_counter() - self._begin
        for number, metrics in enumerate(fetched, start=step - len(fetched) + 1):
            if not np.isfinite(metrics["loss"]):
                raise Diverged(f"the loss is {float(metrics['loss'])} at step {number}")
        means = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
        speed = {"steps_per_second": self._timed / seconds} if self._timed else {}
        self._metrics = []
        self.restart()
        return {**means, **speed, "seconds": seconds}


def default_parallel() -> str:
    """Name of the placement where none is asked for."""
    return "pmap" if jax.device_count() > 1 else "jit"


def check_batch(run: runs.Run, placement: Placement) -> None:
    """Makes the first batch.

    Raises:
        UserError: if the data cannot give one, or the devices do not divide it.
    """
    data.batch(run.dataset, run.config.seed, 0, run.config.batch_size)
    if run.config.batch_size % placement.num_devices:
        text = f"--batch-size {run.config.batch_size} cannot be split evenly over {placement.num_devices} devices"
        raise UserError(f"{text}: give a multiple of {placement.num_devices}, or --parallel jit for one device")


def train(run: runs.Run, placement: Placement, *, parallel: str, again: str) -> int:
    """Trains a run to `config.steps`, from its newest checkpoint.

    Args:
        run: the run, whose directory exists.
        placement: how it lies on the devices.
        parallel: the name of that, for environment.json.
        again: the command that goes on with the run.

    Returns:
        The exit code: 0 done, 1 diverged, 130 interrupted.

    Raises:
        UserError: if there are checkpoints and none is whole, or a file cannot be written.
    """
    if _is_first():
        checkpoints.clean(run.directory)
    _wait_for_others()
    state, start = _start(run, placement)
    if start >= run.config.steps:
        _say(f"{run.directory} is at step {start} of {run.config.steps}: nothing to do (a larger --steps goes on)")
        return DONE
    if _is_first():
        runs.record_environment(run.directory, start, {**devices.environment(), "parallel": parallel})
    try:
        with Interrupts() as interrupts:
            step = _loop(run, placement, state, start, interrupts)
    except Diverged as error:
        return _give_up(run, error)
    if step < run.config.steps:
        _say(f"stopped at step {step} of {run.config.steps} and saved. To go on: {again}")
        return INTERRUPTED
    _say(f"done: step {step}, in {run.directory}. Next: python -m experiments.sample {run.directory}")
    return DONE


def _start(run: runs.Run, placement: Placement) -> tuple[TrainState, int]:
    """The newest checkpoint, or the initial state, placed; and its step."""
    model, tx = run.experiment.model, run.experiment.tx
    if checkpoints.steps(run.directory):
        state = checkpoints.restore_latest(run)
        return placement.put_state(model, state), int(state.step)
    batch = data.batch(run.dataset, run.config.seed, 0, run.config.batch_size)
    state = placement.init_state(model, tx, jax.random.key(run.config.seed), batch)
    host = placement.get_state(model, state)
    _check_invertible(host.params)
    if run.experiment.prepare is not None:
        state = placement.put_state(model, run.experiment.prepare(host))
    return state, 0


def _check_invertible(params: Params) -> None:
    """Refuses to train a flow that has started from channels which it cannot normalise."""
    try:
        check_actnorms(params)
    except ValueError as error:
        raise UserError(str(error)) from error


def _loop(run: runs.Run, placement: Placement, state: TrainState, start: int, interrupts: Interrupts) -> int:
    """Trains; returns the step it came to."""
    config, model, step = run.config, run.experiment.model, start
    update = placement.train_step(model, run.experiment.tx, ema_decay=config.ema_decay)
    with Recorder(run, start) as recorder:
        for step in range(start + 1, config.steps + 1):
            batch = data.batch(run.dataset, config.seed, step - 1, config.batch_size)
            state, metrics = update(state, placement.put_batch(batch))
            recorder.add(step, metrics)
            line = step % config.log_every == 0
            stop = _all_agree(interrupts.asked, ask=line)
            due = step == config.steps or step % config.checkpoint_every == 0
            if stop or due:
                recorder.save(step, placement.get_state(model, state), validate=due)
            elif line:
                recorder.write(step)
            if stop:
                break
    return step


def _is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


@contextlib.contextmanager
def owned(run: runs.Run) -> Iterator[None]:
    """Makes the run directory this run's own, and keeps other commands from training in it.

    Raises:
        UserError: if it belongs to another config, cannot be written, or another process trains there.
    """
    runs.check(run.directory, run.config_name, run.config)
    if _is_first():
        runs.claim(run.directory, run.config_name, run.config)
    with runs.locked(run.directory) if _is_first() else contextlib.nullcontext():
        yield


def _say(text: str) -> None:
    if _is_first():
        say(text)


def _wait_for_others() -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("experiments.loop")


def _all_agree(asked: bool, *, ask: bool) -> bool:  # noqa: FBT001
    """Whether to stop; several processes ask each other, where `ask` holds, so that all stop at the same step."""
    if jax.process_count() == 1:
        return asked
    return ask and bool(multihost_utils.process_allgather(np.asarray(asked)).any())


def _give_up(run: runs.Run, error: Diverged) -> int:
    """Says what happened and what to try."""
    saved = checkpoints.steps(run.directory)
    last = f"the last good checkpoint is step {saved[-1]}" if saved else "there is no checkpoint yet"
    _say(f"stopped: {error}; {last} in {run.directory}, nothing was overwritten")
    _say(f"try a --learning-rate below {run.config.learning_rate:g}, or gradient clipping, in another --workdir")
    return DIVERGED


class Recorder:
    """Looks at every loss, writes the metrics, and saves what was looked at; only the first process writes."""

    def __init__(self, run: runs.Run, start: int) -> None:
        """Opens the log of a run that goes on from a step."""
        self._run, self._start, self._window, self._first = run, start, Window(), _is_first()
        self._log = metrics_log.MetricsLog(run.directory, start) if self._first else None
        self._validation = Validation(run)
        self._progress = Progress(run.config_name, start, run.config.steps, silent=not self._first)

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of one step; waits for the first step, which is compiled."""
        self._window.add(metrics)
        if step == self._start + 1:
            jax.block_until_ready(metrics)
            self._progress.compiled()
            self._window.restart()

    def write(self, step: int) -> None:
        """Writes the window that ends at a step.

        Raises:
            Diverged: if a loss in it is not finite.
        """
        self._write(step, self._window.close(step))

    def save(self, step: int, state: TrainState, *, validate: bool) -> None:
        """Writes the window that ends at a step, with the validation loss unless time presses, and then the checkpoint.

        Raises:
            Diverged: if a loss in it or a parameter is not finite.
        """
        record = self._window.close(step)
        _check_finite(state)
        if self._first:
            valid_loss = self._validation(state) if validate else None
            self._write(step, record if valid_loss is None else {**record, "valid_loss": valid_loss})
            checkpoints.save(self._run, state, valid_loss=valid_loss)
            self._window.restart()

    def _write(self, step: int, record: dict[str, float]) -> None:
        if self._log:
            self._log.write(step, record)
        self._progress.show(step, record)

    def __enter__(self) -> Self:
        """Is ready once it is made."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the log and the progress bar."""
        self._progress.__exit__(*exception)
        if self._log:
            self._log.__exit__(*exception)


def _check_finite(state: TrainState) -> None:
    for leaf in jax.tree.leaves((state.params, state.ema_params)):
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(leaf).all():
            raise Diverged(f"a parameter is not finite after step {int(state.step)}")


class Validation:
    """The loss under the averaged parameters, on the same batches of the validation part with the same noise."""

    def __init__(self, run: runs.Run) -> None:
        """Picks the batches; a part smaller than one batch is repeated."""
        split, size = run.dataset.valid, run.config.batch_size
        count = max(1, min(VALID_BATCHES, len(split.x) // size))
        rows = np.arange(count * size).reshape(count, size) % max(1, len(split.x))
        self._batches = [Batch(split.x[r], None if split.cond is None else split.cond[r]) for r in rows if len(split.x)]
        self._key = jax.random.key(run.config.seed)
        self._loss = jax.jit(
            lambda *args: run.experiment.model.loss(*args)[0], compiler_options=devices.compiler_options()
        )

    def __call__(self, state: TrainState) -> float | None:
        """The loss of a state in canonical host form; `None` if there is no validation part."""
        if not self._batches:
            return None
        params, carry = jax.device_put((state.ema_params, state.carry))
        keys = [jax.random.fold_in(self._key, number) for number in range(len(self._batches))]
        losses = [self._loss(params, carry, key, batch) for key, batch in zip(keys, self._batches, strict=True)]
        return float(np.mean(jax.device_get(losses)))
