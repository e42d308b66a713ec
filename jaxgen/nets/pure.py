"""Linen modules as pure functions over their `params` collection, the only one this library uses."""

from typing import Any

from flax import linen as nn

from jaxgen.types import Params, PRNGKey

__all__ = ["apply", "init"]


def init(module: nn.Module, key: PRNGKey, *args: Any) -> Params:
    """Parameters of a module for inputs like `args`."""
    return module.init(key, *args).get("params", {})


def apply(module: nn.Module, params: Params, *args: Any) -> Any:
    """Output of a module with the given parameters."""
    return module.apply({"params": params}, *args)
