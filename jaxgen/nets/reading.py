"""Whether a model reads its condition: what wrappers that need labels ask before they are trusted with any."""

from collections.abc import Callable
from typing import Any

import jax

__all__ = ["check_read", "is_read"]


def is_read(function: Callable[..., Any], *args: Any) -> bool:
    """Whether the last argument of a function may matter to its value.

    The function is traced, not run, and an operation is taken to depend on all of its inputs: an argument that matters
    is always found, one that does not may be missed where a compiled or looped part of the function takes it.

    Args:
        function: a function of trees of arrays.
        args: its arguments, or their shapes and types.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    needed = {id(var) for var in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(var) in needed for var in equation.outvars):
            needed |= {id(var) for var in equation.invars}
    num_last = len(jax.tree.leaves(args[-1]))
    return any(id(var) in needed for var in jaxpr.invars[len(jaxpr.invars) - num_last :])


def check_read(what: str, function: Callable[..., Any], *args: Any) -> None:
    """Refuses a condition that nobody reads.

    Args:
        what: who needs it, for the message.
        function: a function of a condition, its last argument.
        args: its arguments, or their shapes and types.

    Raises:
        ValueError: if there is no condition, or the function does not read it.
    """
    if args[-1] is None:
        raise ValueError(f"{what} needs a label for every example, got cond=None")
    if not is_read(function, *args):
        raise ValueError(f"{what} needs a conditional model, and this one does not read its labels")
