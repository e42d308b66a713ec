r"""Coupling layers: one part of the event stays, and decides how the other part is changed.

    (1)  (a, b) = split(x),  b' = f(b; net(a, cond)),  z = merge(a, b')
    (2)  ln|det dz/dx| = sum_d ln|df_d/db_d|, since the Jacobian is triangular

A `Partition` says which part is which, an `Elementwise` is the map f of single numbers. Every f is the identity where
its raw parameters are zero, so a network whose output starts at zero makes a coupling that starts as the identity.

Source: Density estimation using Real NVP, https://arxiv.org/abs/1605.08803.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxgen.bijections.base import Bijection
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["Elementwise", "Partition", "coupling", "factor_out", "halves", "scale_shift", "shift"]


class Partition(NamedTuple):
    """Two parts of an event.

    Attributes:
        split: `x -> (kept, changed)`.
        merge: `(kept, changed) -> x`.
    """

    split: Callable[[Any], tuple[Any, Any]]
    merge: Callable[[Any, Any], Any]


class Elementwise(NamedTuple):
    """A family of increasing maps of single numbers, the identity where the raw parameters are zero.

    Attributes:
        num_params: number of raw parameters for one element.
        forward_and_log_det: `(raw [..., num_params], x [...]) -> (z [...], ln dz/dx [...])`.
        inverse_and_log_det: `(raw [..., num_params], z [...]) -> (x [...], ln dx/dz [...])`.
    """

    num_params: int
    forward_and_log_det: Callable[..., tuple[Any, Any]]
    inverse_and_log_det: Callable[..., tuple[Any, Any]]


def halves(*, swap: bool = False) -> Partition:
    """Keeps the first half of the last axis (the smaller one where it is odd) and changes the second.

    Args:
        swap: keep the second half and change the first.
    """

    def split(x: Data) -> tuple[Data, Data]:
        first, second = jnp.split(x, [x.shape[-1] // 2], axis=-1)
        return (second, first) if swap else (first, second)

    def merge(kept: Data, changed: Data) -> Data:
        return jnp.concatenate([changed, kept] if swap else [kept, changed], axis=-1)

    return Partition(split, merge)


def shift() -> Elementwise:
    """Additive map z = x + t, which keeps volumes.

    Source: NICE: Non-linear Independent Components Estimation, https://arxiv.org/abs/1410.8516.
    """

    def forward_and_log_det(raw: Data, x: Data) -> tuple[Data, Data]:
        return x + raw[..., 0], jnp.zeros_like(x)

    def inverse_and_log_det(raw: Data, z: Data) -> tuple[Data, Data]:
        return z - raw[..., 0], jnp.zeros_like(z)

    return Elementwise(1, forward_and_log_det, inverse_and_log_det)


def scale_shift(*, max_log_scale: float = 2.0) -> Elementwise:
    """Affine map z = x exp(s) + t, with the softly bounded log-scale s = max_log_scale tanh(raw / max_log_scale).

    Args:
        max_log_scale: bound of |s|, above 0; infinity leaves s = raw.

    Raises:
        ValueError: if the bound is not positive.
    """
    if not max_log_scale > 0:
        raise ValueError(f"max_log_scale must be above 0, got {max_log_scale}")

    def unpack(raw: Data) -> tuple[Data, Data]:
        if math.isinf(max_log_scale):
            return raw[..., 0], raw[..., 1]
        return max_log_scale * jnp.tanh(raw[..., 0] / max_log_scale), raw[..., 1]

    def forward_and_log_det(raw: Data, x: Data) -> tuple[Data, Data]:
        log_scale, shift = unpack(raw)
        return x * jnp.exp(log_scale) + shift, log_scale

    def inverse_and_log_det(raw: Data, z: Data) -> tuple[Data, Data]:
        log_scale, shift = unpack(raw)
        return (z - shift) * jnp.exp(-log_scale), -log_scale

    return Elementwise(2, forward_and_log_det, inverse_and_log_det)


def coupling(net: Any, partition: Partition | None = None, elementwise: Elementwise | None = None) -> Bijection:
    """Changes one part of the event as the other part tells, by (1) and (2).

    Args:
        net: a linen module `(kept [n, ...], cond) -> raw`, with `elementwise.num_params` outputs for each element of
            the changed part (those of one element next to each other). Start its output at zero.
        partition: which part is kept; `halves()` if not given.
        elementwise: how the other part is changed; `scale_shift()` if not given.

    Raises:
        ValueError: when called, if the network has another number of outputs.
    """
    partition = partition or halves()
    elementwise = elementwise or scale_shift()

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        return net.init(key, partition.split(x)[0], cond).get("params", {})

    def apply(function: Callable[..., Any], params: Params, x: Data, cond: Cond) -> tuple[Data, PerExample]:
        kept, changed = partition.split(x)
        raw = net.apply({"params": params}, kept, cond)
        if raw.size != changed.size * elementwise.num_params:
            raise ValueError(
                f"the coupling needs {elementwise.num_params} outputs of its network for each element of the changed "
                f"part {changed.shape}, got outputs of shape {raw.shape}"
            )
        changed, log_det = function(raw.reshape(*changed.shape, elementwise.num_params), changed)
        return partition.merge(kept, changed), log_det.reshape(x.shape[0], -1).sum(-1)

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        return apply(elementwise.forward_and_log_det, params, x, cond)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        return apply(elementwise.inverse_and_log_det, params, z, cond)

    return Bijection(init, forward_and_log_det, inverse_and_log_det)


def factor_out(rest: Bijection) -> Bijection:
    """Multi-scale flows: the first half of the last axis is base already, the rest of the flow maps the second half.

    Args:
        rest: what is applied to the second half of the channels (the larger one where they are odd); it must keep all
            axes but the last.

    Source: Density estimation using Real NVP, section 3.6, https://arxiv.org/abs/1605.08803.
    """
    parts = halves()

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        return rest.init(key, parts.split(x)[1], cond)

    def apply(function: Callable[..., Any], params: Params, x: Data, cond: Cond) -> tuple[Data, PerExample]:
        done, other = parts.split(x)
        other, log_det = function(params, other, cond)
        return parts.merge(done, other), log_det

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        return apply(rest.forward_and_log_det, params, x, cond)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        return apply(rest.inverse_and_log_det, params, z, cond)

    return Bijection(init, forward_and_log_det, inverse_and_log_det)
