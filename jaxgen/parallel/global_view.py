"""One program for all devices: `jax.jit` over a mesh, split by the compiler."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxgen import core
from jaxgen.core import DATA_AXIS, Model, TrainState
from jaxgen.parallel.arrays import check_devices, check_divisible, map_carry, place, readable, settle, to_host
from jaxgen.parallel.placement import Options, Placement, Step
from jaxgen.types import Batch, Cond, Data, Metrics, Params, PRNGKey

__all__ = ["FSDP_AXIS", "mesh"]

FSDP_AXIS = "fsdp"
"""Name of the mesh axis over which parameters are split as well as examples."""


def _whole(grid: Mesh) -> NamedSharding:
    return NamedSharding(grid, PartitionSpec())


def _rows(grid: Mesh) -> NamedSharding:
    return NamedSharding(grid, PartitionSpec((DATA_AXIS, FSDP_AXIS)))


def _weight(grid: Mesh, leaf: Any) -> NamedSharding:
    """Splits the largest axis that the size of `fsdp` divides; leaves the array whole where there is none."""
    parts = grid.shape[FSDP_AXIS]
    sizes = [(size, -axis) for axis, size in enumerate(leaf.shape) if size and size % parts == 0]
    if parts == 1 or not sizes:
        return _whole(grid)
    return NamedSharding(grid, PartitionSpec(*[None] * -max(sizes)[1], FSDP_AXIS))


def _chain(grid: Mesh, leaf: Any) -> NamedSharding:
    check_divisible("a set of chains", leaf.shape[0], grid.size)
    return _rows(grid)


def _layout(grid: Mesh, model: Model, state: TrainState) -> TrainState:
    """How each array of the state lies on the mesh."""

    def every(sharding: Callable[[Any], NamedSharding]) -> Callable[[PyTree], PyTree]:
        return functools.partial(jax.tree.map, sharding)

    weights = every(functools.partial(_weight, grid))
    carry = map_carry(model, every(functools.partial(_chain, grid)), every(lambda _: _whole(grid)), state.carry)
    return TrainState(
        step=_whole(grid),
        params=weights(state.params),
        ema_params=weights(state.ema_params),
        opt_state=weights(state.opt_state),
        carry=carry,
        key=_whole(grid),
    )


def _put_rows(grid: Mesh, what: str, tree: PyTree) -> PyTree:
    for leaf in jax.tree.leaves(tree):
        check_divisible(what, leaf.shape[0], grid.size)
    return jax.tree.map(lambda leaf: place(leaf, _rows(grid)), tree)


def mesh(
    devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1, compiler_options: Options | None = None
) -> Placement:
    """The global program, split over a mesh of devices with the axes `data` and `fsdp`.

    The batch, the samples and the chains are split over both axes. Parameters and optimiser states are split over
    `fsdp` along the largest axis that it divides, so that a model too large for one device fits on several. D devices
    agree with one to float rounding.

    Args:
        devices: D devices, by default all there are.
        fsdp: number of parts of the parameters, which divides D.
        compiler_options: options for XLA.

    Returns:
        A `Placement` on D devices.

    Raises:
        ValueError: if there is no device or `fsdp` does not divide D; when called, if D does not divide the batch, the
            number of samples or of chains.
    """
    devices = check_devices(devices)
    if fsdp < 1 or len(devices) % fsdp:
        raise ValueError(f"fsdp must divide the number of devices, {len(devices)}, got {fsdp}")
    axes = (DATA_AXIS, FSDP_AXIS)
    grid = jax.make_mesh((len(devices) // fsdp, fsdp), axes, devices=devices, axis_types=(AxisType.Auto,) * 2)
    jit = functools.partial(jax.jit, compiler_options=compiler_options)

    def pinned(model: Model, state: TrainState) -> TrainState:
        return jax.lax.with_sharding_constraint(state, _layout(grid, model, state))

    def put_batch(batch: Batch) -> Batch:
        return _put_rows(grid, "a batch", batch)

    def init_state(model: Model, tx: optax.GradientTransformation, key: PRNGKey, batch: Batch) -> TrainState:
        init = jit(lambda key, batch: pinned(model, core.init_state(model, tx, key, batch)))
        return init(place(key, _whole(grid)), put_batch(batch))

    def put_state(model: Model, state: TrainState) -> TrainState:
        return jax.tree.map(place, state, _layout(grid, model, state))

    def get_state(model: Model, state: TrainState) -> TrainState:
        del model
        return jax.tree.map(to_host, state)

    def train_step(model: Model, tx: optax.GradientTransformation, *, ema_decay: float = 0.0) -> Step:
        inner = core.train_step(model, tx, ema_decay=ema_decay)

        def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            state, metrics = inner(state, batch)
            return pinned(model, state), jax.lax.with_sharding_constraint(metrics, _whole(grid))

        return jit(step, donate_argnums=0)

    def sample(model: Model) -> Callable[..., Data]:
        draw = jit(model.sample, static_argnums=2, out_shardings=_rows(grid))

        def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
            check_divisible("a number of samples", num, len(devices))
            params = jax.tree.map(lambda leaf: settle(leaf, _weight(grid, leaf)), params)
            x = draw(params, place(key, _whole(grid)), num, _put_rows(grid, "a set of labels", cond))
            return jax.tree.map(readable, x)

        return sample

    return Placement(len(devices), init_state, put_state, get_state, put_batch, train_step, sample)
