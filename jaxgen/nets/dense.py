"""The dense layer, as one product of two matrices however many axes the input has.

For x [..., c] and W [c, d], with the leading axes taken as the rows of one matrix X,

    y = X W,    dL/dW = X^T dL/dy.                                                               (1)

Left as an array of several axes, the gradient of W is a contraction over all of them, for which XLA:CPU first copies
dL/dy with its last axis in front; as a product of matrices it reads both as they lie.
"""

import functools
import math
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Num

__all__ = ["Dense", "dot_rows"]


def dot_rows(
    x: Num[Array, "*rows c"], w: Num[Array, "c d"], dimension_numbers: Any = None, **options: Any
) -> Num[Array, "*rows d"]:
    """(1): `jax.lax.dot_general` of rows `x` and a matrix, in the form in which `flax.linen.Dense` calls it.

    Args:
        x: rows `[..., c]`.
        w: matrix `[c, d]`.
        dimension_numbers: what Dense says, that the last axis of `x` goes with the first of `w`; not needed.
        **options: precision and the like, as `jax.lax.dot_general` takes them.

    Returns:
        `[..., d]`.
    """
    del dimension_numbers
    *rows, c = x.shape
    y = jax.lax.dot_general(x.reshape(math.prod(rows), c), w, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*rows, w.shape[-1])


Dense = functools.partial(nn.Dense, dot_general=dot_rows)
"""`flax.linen.Dense` by (1): the same function of the same parameters."""
