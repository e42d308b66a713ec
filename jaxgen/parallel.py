r"""Many devices: three placements of the one train step and of sampling.

A step g(state, batch) is written in the global view. On D devices, with the batch in equal parts x_1 .. x_D:

    (1)  single:  g on one device.
    (2)  mesh:    the same g, compiled once for all devices; the compiler splits it. Random numbers do not depend on D,
         so that D devices agree with one to float rounding.
    (3)  pmap:    every device i runs g on x_i with the key fold_in(key, i), where the gradient is the mean
         (1/D) sum_i grad L(params, carry_i, x_i); metrics and the memory that all share are averaged likewise. Another
         number of devices draws other noise.

The *canonical* state is what one device holds: no device axis, chains concatenated, host arrays. `put_state` and
`get_state` go between it and the placed state, so that what was trained under one placement resumes under any other.

With several processes, every process calls the same functions with the same global arguments.

Source: Sharded computation, https://docs.jax.dev/en/latest/sharded-computation.html.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxgen import core
from jaxgen.core import DATA_AXIS, Model, TrainState
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PRNGKey

__all__ = ["FSDP_AXIS", "Placement", "mesh", "pmap", "single"]

FSDP_AXIS = "fsdp"
"""Name of the mesh axis over which parameters are split as well as examples."""

Devices = Sequence[jax.Device]
Options = dict[str, Any]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


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


# ---- moving arrays ---------------------------------------------------------------------------------------------------


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf: Any) -> Any:
    """The whole array on this host; a typed key stays one."""
    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf)
    if _is_key(leaf):
        return jax.random.wrap_key_data(_to_host(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return np.asarray(_readable(leaf))


def _readable(leaf: jax.Array) -> jax.Array:
    """The array, copied to all devices if a part of it lies out of this process's reach."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    assert isinstance(leaf.sharding, NamedSharding)
    return jax.jit(lambda x: x, out_shardings=NamedSharding(leaf.sharding.mesh, PartitionSpec()))(leaf)


def _place(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """A new array on the devices, of which each process sends its own part."""
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding, may_alias=False)
    if _is_key(leaf):
        data = _place(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _settle(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """The array itself if it lies on these devices already, or else placed."""
    there = isinstance(leaf, jax.Array) and leaf.sharding.device_set == sharding.device_set
    return leaf if there else _place(leaf, sharding)


def _check_divisible(what: str, size: int, num_devices: int) -> None:
    if size % num_devices:
        raise ValueError(f"{what} of {size} cannot be split evenly over {num_devices} devices")


def _split(tree: PyTree, what: str, num_devices: int) -> PyTree:
    """Cuts the first axis of every leaf in one part for each device: `[n, ...]` to `[D, n / D, ...]`."""

    def cut(leaf: Any) -> Any:
        _check_divisible(what, leaf.shape[0], num_devices)
        return leaf.reshape(num_devices, -1, *leaf.shape[1:])

    return jax.tree.map(cut, tree)


def _merge(tree: PyTree) -> PyTree:
    """Undoes `_split`."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def _map_carry(model: Model, chains: Callable[[PyTree], Any], whole: Callable[[PyTree], Any], carry: Carry) -> Carry:
    """Applies one function to the parts of `carry` that are split over the devices and another to those that are not.

    Raises:
        ValueError: if `model.carry_spec` asks for another split.
    """
    choices = {PartitionSpec(DATA_AXIS): chains, PartitionSpec(): whole}

    def choose(spec: PartitionSpec, part: PyTree) -> Any:
        if spec not in choices:
            raise ValueError(f"carry_spec must hold {' or '.join(map(str, choices))}, got {spec}")
        return choices[spec](part)

    return jax.tree.map(choose, model.carry_spec, carry, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))


def _checked(devices: Devices | None) -> tuple[jax.Device, ...]:
    devices = tuple(jax.devices() if devices is None else devices)
    if not devices:
        raise ValueError("a placement needs at least one device, got none")
    return devices


# ---- (1) one device --------------------------------------------------------------------------------------------------


def single(*, compiler_options: Options | None = None) -> Placement:
    """Everything on the default device, compiled by `jax.jit`; (1).

    Args:
        compiler_options: options for XLA, as `jax.jit` takes them.

    Returns:
        A `Placement` on one device.
    """
    jit = functools.partial(jax.jit, compiler_options=compiler_options)

    def init_state(model: Model, tx: optax.GradientTransformation, key: PRNGKey, batch: Batch) -> TrainState:
        return jit(functools.partial(core.init_state, model, tx))(key, batch)

    def put_state(model: Model, state: TrainState) -> TrainState:
        del model
        return jax.tree.map(lambda leaf: jax.device_put(_to_host(leaf), may_alias=False), state)

    def get_state(model: Model, state: TrainState) -> TrainState:
        del model
        return jax.tree.map(_to_host, state)

    def train_step(model: Model, tx: optax.GradientTransformation, *, ema_decay: float = 0.0) -> Step:
        return jit(core.train_step(model, tx, ema_decay=ema_decay), donate_argnums=0)

    def sample(model: Model) -> Callable[..., Data]:
        return jit(model.sample, static_argnums=2, static_argnames="num")

    return Placement(1, init_state, put_state, get_state, jax.device_put, train_step, sample)


# ---- (2) one program for all devices ---------------------------------------------------------------------------------


def _fsdp_spec(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Splits the largest axis that `fsdp` divides; the whole array where there is none."""
    sizes = [(size, -axis) for axis, size in enumerate(shape) if size and size % fsdp == 0]
    if fsdp == 1 or not sizes:
        return PartitionSpec()
    return PartitionSpec(*[None] * -max(sizes)[1], FSDP_AXIS)


def mesh(devices: Devices | None = None, *, fsdp: int = 1, compiler_options: Options | None = None) -> Placement:
    """The global program, split over a mesh of devices with the axes `data` and `fsdp`; (2).

    The batch, the samples and the chains are split over both axes. Parameters and optimiser states are split over
    `fsdp` along the largest axis that it divides, so that a model too large for one device fits on several.

    Args:
        devices: D devices, by default all there are.
        fsdp: number of parts of the parameters, which divides D.
        compiler_options: options for XLA, as `jax.jit` takes them.

    Returns:
        A `Placement` on D devices.

    Raises:
        ValueError: if there is no device or `fsdp` does not divide D; when called, if D does not divide the batch, the
            number of samples or of chains.
    """
    devices = _checked(devices)
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"fsdp must divide the number of devices, {len(devices)}, got {fsdp}")
    shape = (len(devices) // fsdp, fsdp)
    grid = jax.make_mesh(shape, (DATA_AXIS, FSDP_AXIS), devices=devices, axis_types=(AxisType.Auto,) * 2)
    whole, rows = NamedSharding(grid, PartitionSpec()), NamedSharding(grid, PartitionSpec((DATA_AXIS, FSDP_AXIS)))
    jit = functools.partial(jax.jit, compiler_options=compiler_options)

    def weights_layout(weights: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: NamedSharding(grid, _fsdp_spec(leaf.shape, fsdp)), weights)

    def chain_layout(leaf: Any) -> NamedSharding:
        _check_divisible("chains", leaf.shape[0], len(devices))
        return rows

    def layout(model: Model, state: TrainState) -> TrainState:
        chains = functools.partial(jax.tree.map, chain_layout)
        carry = _map_carry(model, chains, lambda part: jax.tree.map(lambda _: whole, part), state.carry)
        weights = weights_layout((state.params, state.ema_params, state.opt_state))
        return TrainState(whole, *weights, carry, whole)

    def pinned(model: Model, state: TrainState) -> TrainState:
        return jax.lax.with_sharding_constraint(state, layout(model, state))

    def put_rows(what: str, tree: PyTree) -> PyTree:
        for leaf in jax.tree.leaves(tree):
            _check_divisible(what, leaf.shape[0], len(devices))
        return jax.tree.map(lambda leaf: _place(leaf, rows), tree)

    def init_state(model: Model, tx: optax.GradientTransformation, key: PRNGKey, batch: Batch) -> TrainState:
        init = jit(lambda key, batch: pinned(model, core.init_state(model, tx, key, batch)))
        return init(_place(key, whole), put_batch(batch))

    def put_state(model: Model, state: TrainState) -> TrainState:
        return jax.tree.map(_place, state, layout(model, state))

    def get_state(model: Model, state: TrainState) -> TrainState:
        del model
        return jax.tree.map(_to_host, state)

    def put_batch(batch: Batch) -> Batch:
        return put_rows("a batch", batch)

    def train_step(model: Model, tx: optax.GradientTransformation, *, ema_decay: float = 0.0) -> Step:
        inner = core.train_step(model, tx, ema_decay=ema_decay)

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            state, metrics = inner(state, batch)
            return pinned(model, state), jax.lax.with_sharding_constraint(metrics, whole)

        return jit(step, donate_argnums=0)

    def sample(model: Model) -> Callable[..., Data]:
        draw = jit(model.sample, static_argnums=2, out_shardings=rows)

        def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
            _check_divisible("a number of samples", num, len(devices))
            params = jax.tree.map(_settle, params, weights_layout(params))
            return jax.tree.map(_readable, draw(params, _place(key, whole), num, put_rows("labels", cond)))

        return sample

    return Placement(len(devices), init_state, put_state, get_state, put_batch, train_step, sample)


# ---- (3) one program for each device ---------------------------------------------------------------------------------


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
    """What device i does with its part of batch and chains, as in (3)."""

    def loss(params: Params, *args: Any) -> tuple[Any, tuple[Carry, Metrics]]:
        return model.loss(_shared(params), *args)

    inner = core.train_step(model._replace(loss=loss), tx, ema_decay=ema_decay)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, jax.lax.axis_index(DATA_AXIS))
        new, metrics = inner(state._replace(key=key), batch)
        carry = _map_carry(model, lambda part: part, _mean_of_floats, new.carry)
        return new._replace(key=state.key, carry=carry), jax.lax.pmean(metrics, DATA_AXIS)

    return step


def _compiled(function: Callable[..., Any], compiler_options: Options | None) -> Callable[..., Any]:
    """Compiles a mapped function once for each shape of its arguments; `jax.pmap` itself takes no options."""
    executables: dict[Any, Any] = {}

    def call(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        signature = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if signature not in executables:
            executables[signature] = function.lower(*args).compile(compiler_options=compiler_options)  # type: ignore[attr-defined]
        return executables[signature](*args)

    return call


def pmap(devices: Devices | None = None, *, compiler_options: Options | None = None) -> Placement:
    """Data parallelism by `jax.pmap`: every device holds the parameters and a part of batch and chains; (3).

    In the placed form, batch and chains are `[D, n / D, ...]`; everything else is as on one device.

    Args:
        devices: D devices, by default all there are.
        compiler_options: options for XLA, as `jax.jit` takes them.

    Returns:
        A `Placement` on D devices.

    Raises:
        ValueError: if there is no device; when called, if D does not divide the batch, the number of samples or of
            chains.
    """
    devices = _checked(devices)
    num_devices = len(devices)
    line = Mesh(np.array(devices), (DATA_AXIS,))
    whole, parts = NamedSharding(line, PartitionSpec()), NamedSharding(line, PartitionSpec(DATA_AXIS))
    mapped = functools.partial(jax.pmap, axis_name=DATA_AXIS, devices=devices, axis_size=num_devices)

    def put_parts(what: str, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: _place(leaf, parts), _split(tree, what, num_devices))

    def put_whole(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: _place(leaf, whole), tree)

    def init_state(model: Model, tx: optax.GradientTransformation, key: PRNGKey, batch: Batch) -> TrainState:
        init = jax.jit(functools.partial(core.init_state, model, tx), compiler_options=compiler_options)
        return put_state(model, init(key, batch))

    def put_state(model: Model, state: TrainState) -> TrainState:
        carry = _map_carry(model, functools.partial(put_parts, "chains"), put_whole, state.carry)
        return put_whole(state._replace(carry=()))._replace(carry=carry)

    def get_state(model: Model, state: TrainState) -> TrainState:
        state = jax.tree.map(_to_host, state)
        return state._replace(carry=_map_carry(model, _merge, lambda part: part, state.carry))

    def put_batch(batch: Batch) -> Batch:
        return put_parts("a batch", batch)

    def train_step(model: Model, tx: optax.GradientTransformation, *, ema_decay: float = 0.0) -> Step:
        carry_axes = jax.tree.map(
            lambda spec: 0 if spec == PartitionSpec(DATA_AXIS) else None,
            model.carry_spec,
            is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
        )
        axes = TrainState(None, None, None, None, carry_axes, None)
        step = mapped(_local_step(model, tx, ema_decay), in_axes=(axes, 0), out_axes=(axes, None), donate_argnums=0)
        return _compiled(step, compiler_options)

    def sample(model: Model) -> Callable[..., Data]:
        @functools.cache
        def draw(num: int) -> Callable[..., Any]:
            def local(params: Params, key: PRNGKey, index: Any, cond: Cond) -> Data:
                return model.sample(params, jax.random.fold_in(key, index), num, cond)

            return _compiled(mapped(local, in_axes=(None, None, 0, 0)), compiler_options)

        def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
            _check_divisible("a number of samples", num, num_devices)
            params = jax.tree.map(lambda leaf: _settle(leaf, whole), params)
            index = _place(np.arange(num_devices), parts)
            x = draw(num // num_devices)(params, _place(key, whole), index, put_parts("labels", cond))
            return jax.tree.map(_readable, jax.jit(_merge)(x))

        return sample

    return Placement(num_devices, init_state, put_state, get_state, put_batch, train_step, sample)
