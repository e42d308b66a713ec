"""Linen modules as pure functions over their `params` collection, the only one this library uses."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.types import Batch, Params, PRNGKey

__all__ = ["apply", "init", "init_on_one", "told"]


def init(module: nn.Module, key: PRNGKey, *args: Any) -> Params:
    """Parameters of a module for inputs like `args`."""
    return module.init(key, *args).get("params", {})


def init_on_one(module: nn.Module, key: PRNGKey, batch: Batch, *args: Any) -> Params:
    """Parameters of a module that is called as `module(*args, cond)`, for `args` of one row and the batch's first cond.

    They do not depend on the number of examples, and one row compiles quickest.
    """
    return init(module, key, *args, jax.tree.map(lambda leaf: leaf[:1], batch.cond))


def apply(module: nn.Module, params: Params, *args: Any) -> Any:
    """Output of a module with the given parameters."""
    return module.apply({"params": params}, *args)


def told(net: nn.Module, params: Params, x: Any, times: tuple[Any, Any], cond: Any) -> Any:
    """The output of a network that is told two times as the columns of its level, `net(x, level [n, 2], cond)`.

    Args:
        net: the module.
        params: its parameters.
        x: `[n, ...]`.
        times: each `[n]`, or one number for the whole batch.
        cond: `[n, ...]` or `None`.
    """
    level = jnp.stack(jnp.broadcast_arrays(*times), axis=-1)
    return apply(net, params, x, jnp.broadcast_to(level, (x.shape[0], 2)), cond)
