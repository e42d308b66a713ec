r"""FFJORD: a continuous normalising flow with any network as its velocity.

    (1)  dx/dt = f(x, t, cond) from data at t = 0 to the base N(0, I) at t = 1
    (2)  ln p(x) = ln N(z; 0, I) + integral of div f dt
    (3)  div f = tr(df/dx) exactly, or E_v[v^T (df/dx) v] with one v for the whole way: an unbiased estimate of (2)

The loss goes through the steps of a fixed grid; likelihoods and samples may take a solver that chooses its own.

Source: FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models,
https://arxiv.org/abs/1810.01367.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxgen.bijections import Bijection, continuous, flow
from jaxgen.core import Model
from jaxgen.samplers import ode
from jaxgen.types import Data, PerExample, PRNGKey

__all__ = ["ffjord"]


def ffjord(
    net: nn.Module,
    shape: Sequence[int],
    *,
    num_steps: int = 8,
    num_probes: int = 1,
    solver: Callable[..., Any] = ode.solve,
    remat: bool = True,
) -> Model:
    """Builds a continuous normalising flow.

    Args:
        net: `(x [n, *shape], t [n] in [0, 1], cond) -> like x`, f; smooth, such as `TimeMLP(embed=slow_features)`.
        shape: shape of one example.
        num_steps: Runge-Kutta steps of a fixed grid, of 4 evaluations of the network each.
        num_probes: directions v of the estimate (3) in the loss and the `elbo`; 0 for the exact divergence, which takes
            as many forward derivatives as x has dimensions.
        solver: `(field, y, grid) -> y`, of `log_prob`, samples, `encode` and `decode`; `adaptive.dormand_prince()`
            reads only the ends of the grid.
        remat: compute each step of the loss and the `elbo` again for their gradient, which then takes the memory of one
            step in place of all.

    Returns:
        A `Model` of reals `[n, *shape]` with `log_prob` by the exact divergence, exact up to the solver, and an `elbo`
        whose mean it is, up to the steps of the fixed grid.

    Raises:
        ValueError: if a number is out of range.

    Source: FFJORD, https://arxiv.org/abs/1810.01367.
    """
    if num_steps < 1 or num_probes < 0:
        raise ValueError(f"expected num_steps >= 1 and num_probes >= 0, got {num_steps} and {num_probes}")

    def along(divergence: Callable[..., Any], solver: Callable[..., Any]) -> Bijection:
        def integrate(field: Callable[..., Any], x: Data, start: float, end: float) -> tuple[Data, PerExample]:
            grid = jnp.linspace(start, end, num_steps + 1)
            return ode.solve_with_divergence(field, x, grid, divergence, solver)

        return continuous(net, integrate)

    def noisy(key: PRNGKey) -> Bijection:
        def estimate(field: Callable[[Data], Data], x: Data) -> tuple[Data, PerExample]:
            probes = jax.random.rademacher(key, (num_probes, *x.shape), x.dtype)
            return ode.hutchinson_divergence(field, x, probes)

        return along(estimate if num_probes else ode.exact_divergence, partial(ode.solve, remat=remat))

    return flow(along(ode.exact_divergence, solver), shape, noisy=noisy)
