"""Moving arrays between hosts and devices, in one process or many."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxgen.core import DATA_AXIS, Model
from jaxgen.types import Carry

__all__ = ["check_devices", "check_divisible", "map_carry", "merge", "place", "readable", "settle", "split", "to_host"]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(leaf: Any) -> Any:
    """The whole array on this host, as numpy; a typed key stays one."""
    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf)
    if _is_key(leaf):
        return jax.random.wrap_key_data(to_host(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return np.asarray(readable(leaf))


def readable(leaf: jax.Array) -> jax.Array:
    """The array, copied whole to all its devices if a part of it lies out of this process's reach."""
    if leaf.is_fully_addressable or leaf.is_fully_replicated:
        return leaf
    assert isinstance(leaf.sharding, NamedSharding)
    return jax.jit(lambda x: x, out_shardings=NamedSharding(leaf.sharding.mesh, PartitionSpec()))(leaf)


def place(leaf: Any, sharding: NamedSharding | None = None) -> jax.Array:
    """A new array on the devices; each process sends its own part of what all of them hold whole.

    Args:
        leaf: an array on the host or on devices, or a typed key.
        sharding: where it goes, by default to the default device.

    Returns:
        An array that shares no memory with `leaf`, so that a step may use it up. (Between devices, JAX would share the
        part that stays where it is.)
    """
    if _is_key(leaf):
        return jax.random.wrap_key_data(place(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    host = to_host(leaf)
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(host, sharding, may_alias=False)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def settle(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """The array itself if it lies on these devices already, or else placed."""
    there = isinstance(leaf, jax.Array) and leaf.sharding.device_set == sharding.device_set
    return leaf if there else place(leaf, sharding)


def check_divisible(what: str, size: int, num_devices: int) -> None:
    """Raises a `ValueError` if the devices do not divide the size of `what`."""
    if size % num_devices:
        raise ValueError(f"{what} of {size} cannot be split evenly over {num_devices} devices")


def check_devices(devices: Sequence[jax.Device] | None) -> tuple[jax.Device, ...]:
    """The devices, by default all there are; a `ValueError` if there are none."""
    devices = tuple(jax.devices() if devices is None else devices)
    if not devices:
        raise ValueError("a placement needs at least one device, got none")
    return devices


def split(tree: PyTree, what: str, num_devices: int) -> PyTree:
    """Cuts the first axis of every leaf in one part for each device: `[n, ...]` to `[D, n / D, ...]`."""

    def cut(leaf: Any) -> Any:
        check_divisible(what, leaf.shape[0], num_devices)
        return leaf.reshape(num_devices, -1, *leaf.shape[1:])

    return jax.tree.map(cut, tree)


def merge(tree: PyTree) -> PyTree:
    """Undoes `split`."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def map_carry(model: Model, chains: Callable[[PyTree], Any], whole: Callable[[PyTree], Any], carry: Carry) -> Carry:
    """Applies one function to the parts of `carry` that the devices share out, another to those that each holds whole.

    Raises:
        ValueError: if `model.carry_spec` asks for another split.
    """
    choices = {PartitionSpec(DATA_AXIS): chains, PartitionSpec(): whole}

    def choose(spec: PartitionSpec, part: PyTree) -> Any:
        if spec not in choices:
            raise ValueError(f"carry_spec must hold {' or '.join(map(str, choices))}, got {spec}")
        return choices[spec](part)

    return jax.tree.map(choose, model.carry_spec, carry, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
