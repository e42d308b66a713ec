"""Bijections between data and base, as records of pure functions; names only."""

from jaxgen.bijections.actnorm import actnorm
from jaxgen.bijections.base import Bijection, chain, forward, inverse, invert, repeat
from jaxgen.bijections.coupling import (
    Elementwise,
    Partition,
    coupling,
    factor_out,
    halves,
    scale_shift,
)
from jaxgen.bijections.fixed import affine, checkerboard, logit, permute, reshape, reverse, squeeze
from jaxgen.bijections.flow import flow

__all__ = [
    "Bijection",
    "Elementwise",
    "Partition",
    "actnorm",
    "affine",
    "chain",
    "checkerboard",
    "coupling",
    "factor_out",
    "flow",
    "forward",
    "halves",
    "inverse",
    "invert",
    "logit",
    "permute",
    "repeat",
    "reshape",
    "reverse",
    "scale_shift",
    "squeeze",
]
