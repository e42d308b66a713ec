r"""Autoregressive layers: every element is changed as the elements before it tell.

    (1)  masked (MAF):   z_i = f(x_i; net_i(x_1, ..., x_{i-1}, cond)),  in one pass from x to z, one by one from z to x
    (2)  inverse (IAF):  x_i = f(z_i; net_i(z_1, ..., z_{i-1}, cond)),  in one pass from z to x, one by one from x to z
    (3)  ln|det dz/dx| = +-sum_i ln|df_i|, since the Jacobian is triangular

The one by one is a `lax.scan` of d steps of the network, which keeps what it computed of the elements before: together
they cost what one evaluation costs.

Sources: Masked Autoregressive Flow for Density Estimation, https://arxiv.org/abs/1705.07057; Improving Variational
Inference with Inverse Autoregressive Flow, https://arxiv.org/abs/1606.04934.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.base import Bijection, invert
from jaxgen.bijections.coupling import Elementwise, scale_shift
from jaxgen.nets import causal
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["inverse_autoregressive", "masked_autoregressive"]


def masked_autoregressive(net: Any, elementwise: Elementwise | None = None) -> Bijection:
    """The layer (1): densities in one pass, samples one dimension after the other.

    Args:
        net: a causal network `(x [n, d], cond) -> raw [n, d, elementwise.num_params]` whose output i depends on
            x_1, ..., x_{i-1} only, with a step from these to that output: `nets.masked.MaskedMLP`. Start its output at
            zero.
        elementwise: how each element is changed; `scale_shift()` if not given.

    Raises:
        ValueError: when called, if the network has another number of outputs.

    Source: Masked Autoregressive Flow for Density Estimation, https://arxiv.org/abs/1705.07057.
    """
    elementwise = elementwise or scale_shift()

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        return net.init(key, x, cond).get("params", {})

    def checked(raw: Data, *shape: int) -> Data:
        expected = (*shape, elementwise.num_params)
        if raw.shape != expected:
            raise ValueError(
                f"the autoregressive layer needs outputs of shape {expected} from its network, got {raw.shape}"
            )
        return raw

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        raw = checked(net.apply({"params": params}, x, cond), *x.shape)
        z, log_det = elementwise.forward_and_log_det(raw, x)
        return z, log_det.sum(-1)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        def settle(state: tuple[Any, Data], index: Any) -> tuple[tuple[Any, Data], PerExample]:
            cache, x = state
            cache, raw = causal.step(net, params, cache, x, index)
            value, log_det = elementwise.inverse_and_log_det(checked(raw, z.shape[0]), z[:, index])
            return (cache, x.at[:, index].set(value)), log_det

        empty = jnp.zeros_like(z)
        start = (causal.start(net, params, empty, cond), empty)
        (_, x), log_dets = jax.lax.scan(settle, start, jnp.arange(z.shape[1]))
        return x, log_dets.sum(0)

    return Bijection(init, forward_and_log_det, inverse_and_log_det)


def inverse_autoregressive(net: Any, elementwise: Elementwise | None = None) -> Bijection:
    """The layer (2): samples, and their densities, in one pass; densities of other data one dimension after the other.

    Args:
        net: as for `masked_autoregressive`, of z in the place of x.
        elementwise: how each element of z is changed; `scale_shift()` if not given.

    Source: Improving Variational Inference with Inverse Autoregressive Flow, https://arxiv.org/abs/1606.04934.
    """
    return invert(masked_autoregressive(net, elementwise))
