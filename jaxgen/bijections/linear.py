r"""Learned invertible linear maps of the channels.

    (1)  z = W x at every position,  W = L (U + diag(exp(s))),  L lower triangular with ones on its diagonal,
         U strictly upper triangular
    (2)  ln|det dz/dx| = (number of positions) sum_c s_c

W is invertible whatever the parameters are. It starts as a random orthogonal matrix: the pivoted factors of a random
rotation, with its rows in the order of the pivots and the signs of its columns such that the diagonal is positive,
which leaves it orthogonal and spares a permutation and signs that would have to be stored.

Source: Glow: Generative Flow with Invertible 1x1 Convolutions, section 3.2, https://arxiv.org/abs/1807.03039.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.bijections.base import Bijection, zero_log_det
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["invertible_1x1"]

Matrix = Float[Array, "c c"]


def invertible_1x1() -> Bijection:
    """The map (1) of the last axis: the invertible 1x1 convolution of images, and a linear map of vectors.

    Source: Glow: Generative Flow with Invertible 1x1 Convolutions, https://arxiv.org/abs/1807.03039.
    """

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        del cond
        rotation = jnp.linalg.qr(jax.random.normal(key, (x.shape[-1], x.shape[-1])))[0]
        _, lower, upper = jax.scipy.linalg.lu(rotation)
        upper = upper * jnp.sign(jnp.diag(upper))
        return {"lower": jnp.tril(lower, -1), "upper": jnp.triu(upper, 1), "log_scale": jnp.log(jnp.diag(upper))}

    def log_det(params: Params, x: Data) -> PerExample:
        return zero_log_det(x) + x[0].size // x.shape[-1] * params["log_scale"].sum()

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        del cond
        lower, upper = _factors(params)
        return x @ (lower @ upper).T, log_det(params, x)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        del cond
        lower, upper = _factors(params)
        half = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(lower)), lower=True, unit_diagonal=True)
        return z @ jax.scipy.linalg.solve_triangular(upper, half).T, -log_det(params, z)

    return Bijection(init, forward_and_log_det, inverse_and_log_det)


def _factors(params: Params) -> tuple[Matrix, Matrix]:
    """The two factors of W in (1)."""
    lower = jnp.tril(params["lower"], -1) + jnp.eye(len(params["log_scale"]))
    return lower, jnp.triu(params["upper"], 1) + jnp.diag(jnp.exp(params["log_scale"]))
