"""Bijections between data and base, as records of pure functions; names only."""

from jaxgen.bijections.actnorm import actnorm, check_actnorms
from jaxgen.bijections.autoregressive import inverse_autoregressive, masked_autoregressive
from jaxgen.bijections.base import Bijection, chain, forward, inverse, invert, repeat
from jaxgen.bijections.continuous import continuous
from jaxgen.bijections.coupling import (
    Elementwise,
    Partition,
    coupling,
    factor_out,
    halves,
    scale_shift,
    shift,
)
from jaxgen.bijections.fixed import (
    affine,
    checkerboard,
    logit,
    permutations,
    permute,
    reshape,
    reverse,
    sigmoid,
    squeeze,
)
from jaxgen.bijections.flow import flow
from jaxgen.bijections.layers import autoregressive_layers, coupling_layers, multi_scale
from jaxgen.bijections.linear import invertible_1x1
from jaxgen.bijections.planar import planar
from jaxgen.bijections.residual import exact_log_det, residual, roulette_log_det
from jaxgen.bijections.spline import rational_quadratic_spline

__all__ = [
    "Bijection",
    "Elementwise",
    "Partition",
    "actnorm",
    "affine",
    "autoregressive_layers",
    "chain",
    "check_actnorms",
    "checkerboard",
    "continuous",
    "coupling",
    "coupling_layers",
    "exact_log_det",
    "factor_out",
    "flow",
    "forward",
    "halves",
    "inverse",
    "inverse_autoregressive",
    "invert",
    "invertible_1x1",
    "logit",
    "masked_autoregressive",
    "multi_scale",
    "permutations",
    "permute",
    "planar",
    "rational_quadratic_spline",
    "repeat",
    "reshape",
    "residual",
    "reverse",
    "roulette_log_det",
    "scale_shift",
    "shift",
    "sigmoid",
    "squeeze",
]
