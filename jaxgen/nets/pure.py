"""Linen modules as pure functions over their `params` collection, the only one this library uses."""

from typing import Any

import jax
from flax import linen as nn

from jaxgen.types import Batch, Params, PRNGKey

__all__ = ["apply", "init", "init_on_one"]


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
