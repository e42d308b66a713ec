"""A learned shift and scale of each channel, which starts from the data."""

import jax.numpy as jnp

from jaxgen.bijections.base import Bijection, zero_log_det
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["actnorm"]


def actnorm() -> Bijection:
    """Learned shift and scale of each channel (index of the last axis): z = (x - mean) exp(-log_scale).

    log_det = -(number of elements per channel) sum_c log_scale_c. It starts from the data: mean and standard deviation
    of every channel of the first batch, so that z has mean 0 and variance 1.

    Source: Glow: Generative Flow with Invertible 1x1 Convolutions, https://arxiv.org/abs/1807.03039.
    """

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        del key, cond
        axes = tuple(range(x.ndim - 1))
        return {"mean": x.mean(axes), "log_scale": 0.5 * jnp.log(x.var(axes) + 1e-6)}

    def log_det(params: Params, x: Data) -> PerExample:
        return zero_log_det(x) + x[0].size // x.shape[-1] * params["log_scale"].sum()

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        del cond
        return (x - params["mean"]) * jnp.exp(-params["log_scale"]), -log_det(params, x)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        del cond
        return z * jnp.exp(params["log_scale"]) + params["mean"], log_det(params, z)

    return Bijection(init, forward_and_log_det, inverse_and_log_det)
