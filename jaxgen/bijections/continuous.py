r"""Continuous flows: data is carried to the base by an ordinary differential equation.

    (1)  dx/dt = f(x, t, cond) from x at t = 0 to z at t = 1
    (2)  ln|det dz/dx| = integral from 0 to 1 of div f(x_t, t) dt

Source: FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models,
https://arxiv.org/abs/1810.01367.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxgen.bijections.base import Bijection
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["continuous"]


def continuous(net: Any, integrate: Callable[..., tuple[Any, Any]]) -> Bijection:
    """The flow (1) of a network.

    Args:
        net: a linen module `(x [n, ...], t [n], cond) -> like x`, f; smooth, as an ODE solver wants it. Where its
            output starts at zero, the flow starts as the identity.
        integrate: `(field, x, start, end) -> (x at end, integral of div field [n])` with `field(x, t)`, such as
            `samplers.ode.solve_with_divergence` on a grid from start to end. How exact the inverse and (2) are is up
            to it.

    Source: FFJORD, https://arxiv.org/abs/1810.01367.
    """

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        return net.init(key, x, jnp.zeros(x.shape[0]), cond).get("params", {})

    def field(params: Params, cond: Cond) -> Callable[[Data, Any], Data]:
        return lambda x, t: net.apply({"params": params}, x, jnp.full(x.shape[0], t), cond)

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        return integrate(field(params, cond), x, 0.0, 1.0)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        return integrate(field(params, cond), z, 1.0, 0.0)

    return Bijection(init, forward_and_log_det, inverse_and_log_det)
