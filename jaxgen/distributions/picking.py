"""One number out of each row, quick to differentiate."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

__all__ = ["pick"]


@jax.custom_jvp
def pick(values: Float[Array, "*#shape k"], index: Integer[Array, "*#shape"]) -> Float[Array, "*shape"]:
    """`values[..., index]` for each index of 0 .. K - 1, and NaN for others.

    A gather, of which the derivative is written as a sum over the row: its transpose is then a product, where that of a
    gather is a scatter, which is slow.
    """
    index = jnp.where(index < 0, values.shape[-1], index)  # a negative one would count from the end
    return jnp.take_along_axis(values, index[..., None], axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]


@pick.defjvp
def _pick_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    (values, index), (dot, _) = primals, tangents
    at = jax.nn.one_hot(index, values.shape[-1], dtype=dot.dtype)
    return pick(values, index), (at * dot).sum(-1)
