"""One program for each device: data parallelism by `jax.pmap`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxgen import core
from jaxgen.core import DATA_AXIS, Model, TrainState
from jaxgen.parallel.arrays import (
    check_devices,
    check_divisible,
    map_carry,
    merge,
    place,
    readable,
    settle,
    split,
    to_host,
)
from jaxgen.parallel.placement import Options, Placement, Step
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PRNGKey

__all__ = ["pmap"]


@jax.custom_vjp
def _shared(params: Params) -> Params:
    """The parameters, with a gradient that is averaged over the devices."""
    return params


_shared.defvjp(lambda params: (params, None), lambda _, grads: (jax.lax.pmean(grads, DATA_AXIS),))


def _mean_of_floats(tree: PyTree) -> PyTree:
    def mean(leaf: Any) -> Any:
        return jax.lax.pmean(leaf, DATA_AXIS) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf

    return jax.tree.map(mean, tree)


def _local_step(model: Model, tx: optax.GradientTransformation, ema_decay: float) -> Step:
    """What device i does with its part of batch and chains: the one step, with its own noise and the mean gradient."""

    def loss(params: Params, *args: Any) -> tuple[Any, tuple[Carry, Metrics]]:
        return model.loss(_shared(params), *args)

    inner = core.train_step(model._replace(loss=loss), tx, ema_decay=ema_decay)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, jax.lax.axis_index(DATA_AXIS))
        new, metrics = inner(state._replace(key=key), batch)
        carry = map_carry(model, lambda part: part, _mean_of_floats, new.carry)
        return new._replace(key=state.key, carry=carry), jax.lax.pmean(metrics, DATA_AXIS)

    return step


def _state_axes(model: Model) -> TrainState:
    """The mapped axis of each part of the state: the first for chains, none for what every device holds whole."""
    is_spec = lambda leaf: isinstance(leaf, PartitionSpec)  # noqa: E731
    axis = lambda spec: 0 if spec == PartitionSpec(DATA_AXIS) else None  # noqa: E731
    return TrainState(None, None, None, None, jax.tree.map(axis, model.carry_spec, is_leaf=is_spec), None)


def _compiled(function: Any, compiler_options: Options | None) -> Callable[..., Any]:
    """Compiles a mapped function once for each shape of its arguments; `jax.pmap` itself takes no options."""
    executables: dict[Any, Any] = {}

    def call(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        signature = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if signature not in executables:
            executables[signature] = function.lower(*args).compile(compiler_options=compiler_options)
        return executables[signature](*args)

    return call


def pmap(devices: Sequence[jax.Device] | None = None, *, compiler_options: Options | None = None) -> Placement:
    """Data parallelism by `jax.pmap`: every device holds the parameters and a part of batch and chains.

    Device i folds i into the key, so that another number of devices draws other noise. In the placed form batch and
    chains are `[D, n / D, ...]`; everything else is as on one device.

    Args:
        devices: D devices, by default all there are.
        compiler_options: options for XLA.

    Returns:
        A `Placement` on D devices.

    Raises:
        ValueError: if there is no device; when called, if D does not divide the batch, the number of samples or of
            chains.
    """
    devices = check_devices(devices)
    num_devices = len(devices)
    line = Mesh(np.array(devices), (DATA_AXIS,))
    whole, parts = NamedSharding(line, PartitionSpec()), NamedSharding(line, PartitionSpec(DATA_AXIS))
    mapped = functools.partial(jax.pmap, axis_name=DATA_AXIS, devices=devices, axis_size=num_devices)

    def put_parts(what: str, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: place(leaf, parts), split(tree, what, num_devices))

    def put_whole(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: place(leaf, whole), tree)

    def put_state(model: Model, state: TrainState) -> TrainState:
        carry = map_carry(model, functools.partial(put_parts, "a set of chains"), put_whole, state.carry)
        return put_whole(state._replace(carry=()))._replace(carry=carry)

    def get_state(model: Model, state: TrainState) -> TrainState:
        state = jax.tree.map(to_host, state)
        return state._replace(carry=map_carry(model, merge, lambda part: part, state.carry))

    def init_state(model: Model, tx: optax.GradientTransformation, key: PRNGKey, batch: Batch) -> TrainState:
        init = jax.jit(functools.partial(core.init_state, model, tx), compiler_options=compiler_options)
        return put_state(model, init(key, batch))

    def train_step(model: Model, tx: optax.GradientTransformation, *, ema_decay: float = 0.0) -> Step:
        step, axes = _local_step(model, tx, ema_decay), _state_axes(model)
        return _compiled(mapped(step, in_axes=(axes, 0), out_axes=(axes, None), donate_argnums=0), compiler_options)

    def sample(model: Model) -> Callable[..., Data]:
        @functools.cache
        def draw(num: int) -> Callable[..., Any]:
            def local(params: Params, key: PRNGKey, index: Any, cond: Cond) -> Data:
                return model.sample(params, jax.random.fold_in(key, index), num, cond)

            return _compiled(mapped(local, in_axes=(None, None, 0, 0)), compiler_options)

        def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
            check_divisible("a number of samples", num, num_devices)
            params = jax.tree.map(lambda leaf: settle(leaf, whole), params)
            index = place(np.arange(num_devices), parts)
            x = draw(num // num_devices)(params, place(key, whole), index, put_parts("a set of labels", cond))
            return jax.tree.map(readable, jax.jit(merge)(x))

        return sample

    return Placement(
        num_devices, init_state, put_state, get_state, lambda b: put_parts("a batch", b), train_step, sample
    )
