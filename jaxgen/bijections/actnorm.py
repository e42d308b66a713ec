"""A learned shift and scale of each channel, which starts from the data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.bijections.base import Bijection, zero_log_det
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["actnorm", "check_actnorms"]

FLOOR = 1e-6
"""Added to the variance of a channel before it divides."""


def _check_channels(x: Data) -> None:
    if isinstance(x, jax.core.Tracer):
        return
    rows = np.asarray(x).reshape(-1, x.shape[-1])
    with np.errstate(invalid="ignore"):
        spread = np.ptp(rows, axis=0)
    varies = np.isfinite(spread) & (spread > 0)
    if not varies.all():
        channel = int(np.argmin(varies))
        raise ValueError(
            f"activation normalisation needs channels that vary and are finite, got channel {channel} of the first "
            f"batch, whose largest value is {spread[channel]:g} above its least"
        )


def check_actnorms(params: Params) -> None:
    """Checks the first parameters of a flow, made under `jax.jit`, for channels that could not be normalised.

    Args:
        params: of any model, not traced; activation normalisations are found in it, also stacked by `repeat`.

    Raises:
        ValueError: if a channel of the first batch was constant or not finite where it reached one of them.
    """
    siblings: dict[str, dict[Any, Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = getattr(path[-1], "key", None) if path else None
        siblings.setdefault(jax.tree_util.keystr(path[:-1]), {})[name] = leaf
    for where, leaves in siblings.items():
        if set(leaves) == {"mean", "log_scale"}:
            scale = np.exp(np.asarray(leaves["log_scale"], np.float64))
            varies = np.isfinite(scale) & (scale > np.sqrt(1.001 * FLOOR))
            if not varies.all():
                found = np.argwhere(~varies)[0]
                raise ValueError(
                    f"activation normalisation needs channels that vary and are finite, got channel {found[-1]} of the "
                    f"first batch at params{where}, whose scale is {scale[tuple(found)]:g}"
                )


def actnorm() -> Bijection:
    """Learned shift and scale of each channel (index of the last axis): z = (x - mean) exp(-log_scale).

    log_det = -(number of elements per channel) sum_c log_scale_c. It starts from the data: mean and standard deviation
    of every channel of the first batch, so that z has mean 0 and variance 1 (of a variance below 1e-6, less).

    Raises:
        ValueError: from `init`, where the batch is not traced and a channel is constant or not finite: no scale gives
            it variance 1. Under `jax.jit`, and in `repeat`, whose layers are always traced, a constant channel is
            divided by 1e-3, and `check_actnorms` tells it from the parameters.

    Source: Glow: Generative Flow with Invertible 1x1 Convolutions, https://arxiv.org/abs/1807.03039.
    """

    def init(key: PRNGKey, x: Data, cond: Cond = None) -> Params:
        del key, cond
        _check_channels(x)
        axes = tuple(range(x.ndim - 1))
        return {"mean": x.mean(axes), "log_scale": 0.5 * jnp.log(x.var(axes) + FLOOR)}

    def log_det(params: Params, x: Data) -> PerExample:
        return zero_log_det(x) + x[0].size // x.shape[-1] * params["log_scale"].sum()

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        del cond
        return (x - params["mean"]) * jnp.exp(-params["log_scale"]), -log_det(params, x)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> tuple[Data, PerExample]:
        del cond
        return z * jnp.exp(params["log_scale"]) + params["mean"], log_det(params, z)

    return Bijection(init, forward_and_log_det, inverse_and_log_det)
