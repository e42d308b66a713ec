r"""The mu-law: signals in [-1, 1] on a scale that is finer where they are quiet.

With mu > 0, 255 say, and c(v) = v for mu = 0, the limit:

    (1)  c(v) = sign(v) ln(1 + mu |v|) / ln(1 + mu),   c^-1(y) = sign(y) ((1 + mu)^|y| - 1) / mu

Source: ITU-T G.711, https://www.itu.int/rec/T-REC-G.711, whose tables are made of straight pieces of (1).
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["compand", "expand", "level_cells"]


def compand(v: Float[Array, "*shape"], mu: float = 255.0) -> Float[Array, "*shape"]:
    """The c of (1), from [-1, 1] to [-1, 1]."""
    return jnp.sign(v) * jnp.log1p(mu * jnp.abs(v)) / math.log1p(mu) if mu else v


def expand(y: Float[Array, "*shape"], mu: float = 255.0) -> Float[Array, "*shape"]:
    """The inverse of c of (1), from [-1, 1] to [-1, 1]."""
    return jnp.sign(y) * jnp.expm1(jnp.abs(y) * math.log1p(mu)) / mu if mu else y


def level_cells(
    x: Float[Array, "*shape"], num_levels: int, mu: float = 0.0
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Lower edge, upper edge and width, on the scale of (1), of the cells of levels that lie evenly in [-1, 1].

    With v = (2 x - L + 1) / (L - 1) and h = 1 / (L - 1), they are c(v - h), c(v + h) and the difference, by a form that
    does not cancel where cells are narrow.
    """
    half = 1 / (num_levels - 1)
    v = (2 * x - (num_levels - 1)) * half
    if not mu:
        return v - half, v + half, jnp.full_like(v, 2 * half)
    inner, across = jnp.maximum(jnp.abs(v) - half, 0), jnp.maximum(half - jnp.abs(v), 0)
    beyond = jnp.log1p(mu * (2 * half - across) / (1 + mu * inner))  # of the side of 0 on which v is
    return compand(v - half, mu), compand(v + half, mu), (beyond + jnp.log1p(mu * across)) / math.log1p(mu)
