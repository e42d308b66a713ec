"""What a placement is, and the simplest one: a single device."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from jaxgen import core
from jaxgen.core import Model, TrainState
from jaxgen.parallel.arrays import place, to_host
from jaxgen.types import Batch, Data, Metrics, PRNGKey

__all__ = ["Options", "Placement", "Step", "single"]

Options = dict[str, Any]
"""Options for XLA, as `jax.jit` takes them."""

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
"""A compiled train step."""


class Placement(NamedTuple):
    """How training and sampling lie on the devices.

    Attributes:
        num_devices: D, which must divide the batch, the number of samples and the number of chains.
        init_state: `(model, tx, key, batch) -> state`, the placed state at step 0, of a global batch.
        put_state: `(model, state) -> state`: the canonical state, placed.
        get_state: `(model, state) -> state`: the placed state in its canonical form: numpy arrays (and typed keys) that
            every process holds whole.
        put_batch: `batch -> batch`: a global batch, placed. Every process hands in the same whole batch.
        train_step: `(model, tx, *, ema_decay=0.0) -> step`, where `step(state, batch) -> (state, metrics)` is compiled,
            takes what is placed, and uses up the state it is given.
        sample: `model -> draw`, where `draw(params, key, num, cond=None) -> x [num, ...]` is compiled; `params` are
            placed or canonical (which are then placed at every call); every process can read the result.
    """

    num_devices: int
    init_state: Callable[..., TrainState]
    put_state: Callable[[Model, TrainState], TrainState]
    get_state: Callable[[Model, TrainState], TrainState]
    put_batch: Callable[[Batch], Batch]
    train_step: Callable[..., Step]
    sample: Callable[[Model], Callable[..., Data]]


def single(*, compiler_options: Options | None = None) -> Placement:
    """Everything on the default device, compiled by `jax.jit`.

    Args:
        compiler_options: options for XLA.

    Returns:
        A `Placement` on one device.
    """
    jit = functools.partial(jax.jit, compiler_options=compiler_options)

    def init_state(model: Model, tx: optax.GradientTransformation, key: PRNGKey, batch: Batch) -> TrainState:
        return jit(functools.partial(core.init_state, model, tx))(key, batch)

    def put_state(model: Model, state: TrainState) -> TrainState:
        del model
        return jax.tree.map(place, state)

    def get_state(model: Model, state: TrainState) -> TrainState:
        del model
        return jax.tree.map(to_host, state)

    def train_step(model: Model, tx: optax.GradientTransformation, *, ema_decay: float = 0.0) -> Step:
        return jit(core.train_step(model, tx, ema_decay=ema_decay), donate_argnums=0)

    def sample(model: Model) -> Callable[..., Data]:
        return jit(model.sample, static_argnums=2, static_argnames="num")

    return Placement(1, init_state, put_state, get_state, jax.device_put, train_step, sample)
