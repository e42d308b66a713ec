"""Multiplications and additions of a function's matrix products and convolutions, from its jaxpr.

A product of an [m, k] and a [k, n] matrix counts 2 m k n, and a convolution 2 for each output and each weight that it
sees. Loops count as often as they go round; of branches the dearest counts. This is the work of the model: what the
compiler makes of it, and what is computed again in a backward pass, changes nothing.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

__all__ = ["products"]


def products(f: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of the products and convolutions of `f(*args)`; arguments may be shapes."""
    return _of(jax.make_jaxpr(f)(*args).jaxpr)


def _of(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
    if equation.primitive.name in ("conv_general_dilated", "convolve"):
        kernel, params = equation.invars[1].aval, equation.params
        axes = params["how"].axes if "how" in params else params["dimension_numbers"]
        outputs = kernel.shape[axes.rhs_spec[0]]
        return 2 * equation.outvars[0].aval.size * (kernel.size // outputs)
    inner = [_of(jaxpr) for jaxpr in _jaxprs(equation.params.values())]
    if equation.primitive.name == "cond":
        return max(inner)
    return sum(inner) * equation.params.get("length", 1) if equation.primitive.name == "scan" else sum(inner)


def _jaxprs(values: Any) -> Iterator[Any]:
    """The functions among the parameters of an equation."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _jaxprs(value)
        elif hasattr(value, "jaxpr") or hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)
