r"""Residual layers: the identity and a contraction.

    (1)  z = x + g(x),  |g(x) - g(y)| <= c |x - y| with c < 1
    (2)  x = lim x_k,  x_{k+1} = z - g(x_k),  |x_k - x| <= c^k / (1 - c) |g(z)|  from x_0 = z
    (3)  ln|det dz/dx| = ln det(I + J) = sum_{k>=1} (-1)^{k+1} tr(J^k) / k,  J = dg/dx
    (4)  = E_{v, N}[ sum_{k=1..N} (-1)^{k+1} v^T J^k v / (k P(N >= k)) ],  E[v v^T] = I    Russian roulette
    (5)  d(3) = tr((I + J)^{-1} dJ) = E_{v, N}[ sum_{k=0..N} (-1)^k v^T J^k dJ v / P(N >= k) ]

(4) and (5) are unbiased, each in one pass of products with J from the left, whose memory does not grow with N.

Sources: Invertible Residual Networks, https://arxiv.org/abs/1811.00995; Residual Flows for Invertible Generative
Modeling, https://arxiv.org/abs/1906.02735.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.base import Bijection
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["exact_log_det", "residual", "roulette_log_det"]

Map = Callable[[Any, Any], Any]


def exact_log_det(g: Map, args: Any, x: Data) -> tuple[Data, PerExample]:
    """The first expression of (3), from the whole Jacobian: for few dimensions.

    Args:
        g: `(args, x) -> g(x)`, which treats the examples one by one.
        args: what else g reads.
        x: where, `[n, ...]`.

    Returns:
        g(x), and ln det(I + J) `[n]`; NaN where it is not positive, since no contraction folds space.
    """
    value, derivative = jax.linearize(lambda x: g(args, x), x)
    size = x[0].size
    basis = jnp.eye(size, dtype=x.dtype).reshape(size, *x.shape[1:])
    columns = jax.vmap(lambda e: derivative(jnp.broadcast_to(e, x.shape)).reshape(-1, size))(basis)
    sign, log_det = jnp.linalg.slogdet(jnp.eye(size) + columns.transpose(1, 2, 0))
    return value, jnp.where(sign > 0, log_det, jnp.nan)


def roulette_log_det(key: PRNGKey, *, num_exact: int = 2, stop: float = 0.5) -> Callable[..., tuple[Data, PerExample]]:
    """The unbiased estimate (4) with the gradient (5), for any number of dimensions.

    Args:
        key: random key of v (signs, of every example its own) and of N (one for all of them).
        num_exact: N is this plus a geometric number of at least 1, so that one term more is always there.
        stop: probability with which the series stops after each further term, in (0, 1).

    Returns:
        A function in the shape of `exact_log_det`.

    Raises:
        ValueError: if a number is out of range.

    Source: Residual Flows for Invertible Generative Modeling, https://arxiv.org/abs/1906.02735.
    """
    if num_exact < 0 or not 0 < stop < 1:
        raise ValueError(f"expected num_exact >= 0 and stop in (0, 1), got {num_exact} and {stop}")

    def log_det(g: Map, args: Any, x: Data) -> tuple[Data, PerExample]:
        sign_key, count_key = jax.random.split(key)
        v = jax.random.rademacher(sign_key, x.shape, x.dtype)
        num_terms = num_exact + jax.random.geometric(count_key, stop)
        at, point = jax.tree.map(jax.lax.stop_gradient, (args, x))
        estimate, neumann = _series(g, at, point, v, num_terms, functools.partial(_weight, num_exact, stop))
        value, dg = jax.jvp(lambda x: g(args, x), (x,), (v,))
        gradient = _sum(neumann * dg)
        return value, estimate + gradient - jax.lax.stop_gradient(gradient)

    return log_det


def _weight(num_exact: int, stop: float, k: Any) -> Any:
    """1 / P(N >= k)."""
    return (1 - stop) ** -jnp.maximum(k - num_exact - 1.0, 0.0)


def _series(
    g: Map, args: Any, x: Data, v: Data, num_terms: Any, weight: Callable[[Any], Any]
) -> tuple[PerExample, Data]:
    """The sum in (4), and that of (5) without dJ v."""
    pull = jax.vjp(lambda x: g(args, x), x)[1]

    def add(k: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        left, total, neumann = state
        left = -pull(left)[0]
        return left, total - weight(k) / k * _sum(left * v), neumann + weight(k) * left

    _, total, neumann = jax.lax.fori_loop(1, num_terms + 1, add, (v, jnp.zeros(x.shape[0]), v))
    return jax.lax.stop_gradient(total), jax.lax.stop_gradient(neumann)


def _sum(x: Data) -> PerExample:
    return x.reshape(x.shape[0], -1).sum(-1)


def _as_they_are(params: Params) -> Params:
    return params


def residual(
    net: Any,
    log_det: Callable[..., tuple[Any, Any]] = exact_log_det,
    *,
    constrain: Callable[[Params], Params] = _as_they_are,
    num_iterations: int = 100,
) -> Bijection:
    """The layer (1).

    Args:
        net: a linen module `(x, cond) -> like x`, g.
        log_det: `(g, args, x) -> (g(x), ln|det(I + J)| [n])` with `g(args, x)`: `exact_log_det`, or what
            `roulette_log_det` returns.
        constrain: `params -> params` with which the network is a contraction, see `nets.spectral.limited`; none is
            needed where they are handed over constrained.
        num_iterations: iterations of (2), which bounds the error of the inverse.

    Raises:
        ValueError: if `num_iterations < 1`.

    Source: Invertible Residual Networks, https://arxiv.org/abs/1811.00995.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations must be at least 1, got {num_iterations}")

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        return net.init(key, x, cond).get("params", {})

    def g(args: tuple[Params, Cond], x: Data) -> Data:
        return net.apply({"params": args[0]}, x, args[1])

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        value, change = log_det(g, (constrain(params), cond), x)
        return x + value, change

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        args = (constrain(params), cond)
        x = jax.lax.fori_loop(0, num_iterations, lambda _, x: z - g(args, x), z)
        return x, -log_det(g, args, x)[1]

    return Bijection(init, forward_and_log_det, inverse_and_log_det)
