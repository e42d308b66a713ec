"""Integers as data: their type, and which of them there are."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Num

from jaxgen.types import Data

__all__ = ["check_levels", "known", "stored", "tokens"]


def tokens(x: Data, what: str) -> Data:
    """Data of integers as `int32`; `what` expects them.

    Raises:
        ValueError: if the data is not of an integer type.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{what} expects integers, got data of type {x.dtype}")
    return x.astype(jnp.int32)


def stored(x: Data, num_levels: int) -> Data:
    """Drawn levels in the type that models give them: `uint8`, or as they are where there are more than 256."""
    return x.astype(jnp.uint8) if num_levels <= 256 else x


def check_levels(x: Data, num_levels: int, what: str, *, name: str = "levels") -> None:
    """Checks that integers are levels (or labels, by the `name`); traced ones, whose values are not known, pass.

    By numpy, since what a compiled function holds is known, and jax would trace the check.

    Raises:
        ValueError: if one is not in 0 .. num_levels - 1.
    """
    if isinstance(x, jax.core.Tracer) or x.size == 0:
        return
    values = np.asarray(x)
    for value in (int(values.min()), int(values.max())):
        if not 0 <= value < num_levels:
            raise ValueError(f"{what} knows the {name} 0 to {num_levels - 1}, got {value}")


def known(x: Num[Array, "*shape"], num_levels: int) -> Bool[Array, "*shape"]:
    """Where integers are levels 0 .. num_levels - 1; `num_levels` itself may be too large for their type."""
    x = x.astype(jnp.int32)
    return (x >= 0) & (x < num_levels)
