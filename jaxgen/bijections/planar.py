r"""Planar flows: a bend of space along one direction.

    (1)  z = x + u' tanh(a),  a = w^T x + b
    (2)  u' = u + (m(w^T u) - w^T u) w / |w|^2,  m(y) = softplus(y) - 1 > -1,  so that w^T u' > -1
    (3)  ln|det dz/dx| = ln(1 + w^T u' (1 - tanh(a)^2))
    (4)  x = z - u' tanh(a), where a is the only root of the increasing a + w^T u' tanh(a) = w^T z + b,
         within |w^T u'| of its right side

Source: Variational Inference with Normalizing Flows, https://arxiv.org/abs/1505.05770, with its appendix A.1 for (2).
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.base import Bijection
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["planar"]


def planar(*, num_halvings: int = 30) -> Bijection:
    """The map (1) of vectors `[n, d]`; its inverse (4) is found by bisection and can be differentiated.

    Args:
        num_halvings: halvings of the interval (4); 30 are enough for float32.

    Raises:
        ValueError: if `num_halvings < 1`.

    Source: Variational Inference with Normalizing Flows, https://arxiv.org/abs/1505.05770.
    """
    if num_halvings < 1:
        raise ValueError(f"num_halvings must be at least 1, got {num_halvings}")

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        del cond
        w_key, u_key = jax.random.split(key)
        scale = x.shape[-1] ** -0.5
        w, u = (scale * jax.random.normal(key, x.shape[-1:]) for key in (w_key, u_key))
        return {"w": w, "u": u, "b": jnp.zeros(())}

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        del cond
        u, product = _invertible(params)
        a = x @ params["w"] + params["b"]
        return x + u * jnp.tanh(a)[:, None], _log_det(product, a)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        del cond
        u, product = _invertible(params)
        a = _root(product, z @ params["w"] + params["b"], num_halvings)
        return z - u * jnp.tanh(a)[:, None], -_log_det(product, a)

    return Bijection(init, forward_and_log_det, inverse_and_log_det)


def _invertible(params: Params) -> tuple[Data, Any]:
    """The u' of (2), and w^T u'."""
    w, u = params["w"], params["u"]
    product = w @ u
    allowed = jax.nn.softplus(product) - 1
    return u + (allowed - product) * w / (w @ w), allowed


def _log_det(product: Any, a: PerExample) -> PerExample:
    """(3)."""
    return jnp.log1p(product * (1 - jnp.tanh(a) ** 2))


def _root(product: Any, right: PerExample, num_halvings: int) -> PerExample:
    """The root of (4) by bisection, then one step of Newton's, which the derivatives go through."""

    def excess(a: PerExample, product: Any, right: PerExample) -> PerExample:
        return a + product * jnp.tanh(a) - right

    def halve(_: Any, ends: tuple[Any, Any]) -> tuple[Any, Any]:
        middle = 0.5 * (ends[0] + ends[1])
        low = excess(middle, *fixed) < 0
        return jnp.where(low, middle, ends[0]), jnp.where(low, ends[1], middle)

    fixed = jax.lax.stop_gradient((product, right))
    ends = (fixed[1] - abs(fixed[0]), fixed[1] + abs(fixed[0]))
    low, high = jax.lax.fori_loop(0, num_halvings, halve, ends)
    a = 0.5 * (low + high)
    slope = 1 + fixed[0] * (1 - jnp.tanh(a) ** 2)
    return a - excess(a, product, right) / slope
