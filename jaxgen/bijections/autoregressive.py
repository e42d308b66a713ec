r"""Autoregressive layers: every element is changed as the elements before it tell.

    (1)  masked (MAF):   z_i = f(x_i; net_i(x_1, ..., x_{i-1}, cond)),  in one pass from x to z, one by one from z to x
    (2)  inverse (IAF):  x_i = f(z_i; net_i(z_1, ..., z_{i-1}, cond)),  in one pass from z to x, one by one from x to z
    (3)  ln|det dz/dx| = +-sum_i ln|df_i|, since the Jacobian is triangular

The one by one is a `lax.scan` of d evaluations of the network, of which each settles one more element.

Sources: Masked Autoregressive Flow for Density Estimation, https://arxiv.org/abs/1705.07057; Improving Variational
Inference with Inverse Autoregressive Flow, https://arxiv.org/abs/1606.04934.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections.base import Bijection, invert
from jaxgen.bijections.coupling import Elementwise, scale_shift
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["inverse_autoregressive", "masked_autoregressive"]


def masked_autoregressive(net: Any, elementwise: Elementwise | None = None) -> Bijection:
    """The layer (1): densities in one pass, samples one dimension after the other.

    Args:
        net: a linen module `(x [n, d], cond) -> raw [n, d, elementwise.num_params]` whose output i depends on
            x_1, ..., x_{i-1} only, such as `nets.masked.MaskedMLP`. Start its output at zero.
        elementwise: how each element is changed; `scale_shift()` if not given.

    Raises:
        ValueError: when called, if the network has another number of outputs.

    Source: Masked Autoregressive Flow for Density Estimation, https://arxiv.org/abs/1705.07057.
    """
    elementwise = elementwise or scale_shift()

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        return net.init(key, x, cond).get("params", {})

    def raw_of(params: Params, x: Data, cond: Cond) -> Data:
        raw = net.apply({"params": params}, x, cond)
        if raw.shape != (*x.shape, elementwise.num_params):
            raise ValueError(
                f"the autoregressive layer needs outputs of shape {(*x.shape, elementwise.num_params)} from its "
                f"network, got {raw.shape}"
            )
        return raw

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        z, log_det = elementwise.forward_and_log_det(raw_of(params, x, cond), x)
        return z, log_det.sum(-1)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        def settle(x: Data, index: Any) -> tuple[Data, PerExample]:
            raw = raw_of(params, x, cond)
            value, log_det = elementwise.inverse_and_log_det(raw[:, index], z[:, index])
            return x.at[:, index].set(value), log_det

        x, log_dets = jax.lax.scan(settle, jnp.zeros_like(z), jnp.arange(z.shape[1]))
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
