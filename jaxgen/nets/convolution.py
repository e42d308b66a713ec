r"""Convolutions whose derivatives are quick in every loop.

With zeros around x where z has no number, strides s, and dilations a of the image and b of the kernel k, in each
direction of space,

    (1)  y[n, o, d] = sum_(i, c) z[n, s o + b i - lo, c] k[i, c, d],  z[n, a p, c] = x[n, p, c]

(1) is linear in x and in k, which span X = (num x - 1) a + 1 and K = (num k - 1) b + 1 places, and its O = (num y - 1)
s + 1. Both transposes are convolutions (*) again:

    (2)  x' = y' * flip(k), c and d exchanged, strides a, dilations s and b, lo' = K - 1 - lo, hi' = X - O + lo
    (3)  k' = x * y', n in the place of the sum's c, strides b, dilations a and s, lo' = lo, hi' = O + K - 1 - X - lo

JAX writes (2) and (3) with other orders of the axes than (1), not with other arrays, and XLA:CPU has a quick form for
one order only. It rearranges convolutions at the top of a program but none inside of a loop, where their derivatives
then take some eighty times as long (measured in `benchmarks/README.md`). `convolve` is the same function as a primitive
of its own, of which all derivatives are again such: on a CPU each is rearranged wherever it stands, elsewhere it is
what JAX would have written.
"""

import functools
from collections.abc import Sequence
from operator import index
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

__all__ = ["convolve"]

Pads = tuple[tuple[int, int], ...]


class _Window(NamedTuple):
    """How a kernel goes over an image: what `jax.lax.conv_general_dilated` is told beside both."""

    strides: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    axes: Any
    precision: Any


def convolve(
    x: Any,
    kernel: Any,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    **rest: Any,
) -> Any:
    """`jax.lax.conv_general_dilated`, differentiated quickly inside of loops too.

    Derivatives of every order, forward and backward, `jax.vmap` and sharding are those of the original. It is the
    original where there is something else to do than (1), such as groups of channels, on meshes of explicit axes, and
    of images and kernels that are both mapped (gradients by the kernel of single examples).

    Args:
        x: the image, by default `[n, c, ...]`.
        kernel: by default `[d, c, ...]`.
        window_strides: s.
        padding: lo and hi in each direction, or "SAME" or "VALID".
        lhs_dilation: a; 1 by default.
        rhs_dilation: b; 1 by default.
        dimension_numbers: the orders of axes, as JAX takes them.
        **rest: precision, and what makes it another function than (1).

    Returns:
        The convolution (cross-correlation).
    """
    options = (lhs_dilation, rhs_dilation, dimension_numbers)
    if not _is_plain(x, kernel, window_strides, padding, options, rest):
        return jax.lax.conv_general_dilated(x, kernel, window_strides, padding, *options, **rest)
    axes, ones = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers), (1,) * (len(x.shape) - 2)
    usual = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    how = _Window(
        strides=tuple(map(index, window_strides)),
        padding=(),
        dilation=ones if lhs_dilation is None else tuple(map(index, lhs_dilation)),
        kernel_dilation=ones if rhs_dilation is None else tuple(map(index, rhs_dilation)),
        axes=axes,
        precision=usual if rest.get("precision") is None else rest["precision"],
    )
    return _bind(x, kernel, how._replace(padding=_pads(x, kernel, padding, how)))


def _is_plain(x: Any, kernel: Any, strides: Any, padding: Any, options: tuple[Any, Any, Any], rest: Any) -> bool:
    """Whether it is (1), of arrays that no mesh of explicit axes shards; all else, mistakes too, is left to JAX."""
    dilations = [each for each in options[:2] if each is not None]
    if {len(each) for each in (strides, *dilations)} != {x.ndim - 2}:
        return False
    dilated = options[0] is not None and any(a != 1 for a in options[0])
    pads = not dilated if isinstance(padding, str) else np.shape(padding) == (x.ndim - 2, 2)
    neutral = {"precision": rest.get("precision"), "feature_group_count": 1, "batch_group_count": 1}
    neutral |= {"preferred_element_type": None, "out_sharding": None}
    explicit = any(jax.typeof(array).sharding.mesh.explicit_axes for array in (x, kernel))
    return pads and not explicit and all(name in neutral and rest[name] == neutral[name] for name in rest)


def _pads(x: Any, kernel: Any, padding: Any, how: _Window) -> Pads:
    if not isinstance(padding, str):
        return tuple((index(low), index(high)) for low, high in padding)
    sides = [x.shape[axis] for axis in how.axes.lhs_spec[2:]]
    spans = _spans([kernel.shape[axis] for axis in how.axes.rhs_spec[2:]], how.kernel_dilation)
    return tuple(jax.lax.padtype_to_pads(sides, spans, how.strides, padding))


def _spans(sides: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """(num - 1) dilation + 1 in each direction, and 0 where there is nothing."""
    return [(side - 1) * step + 1 if side else 0 for side, step in zip(sides, dilation, strict=True)]


def _bind(x: Any, kernel: Any, how: _Window) -> Any:
    """The primitive, of arrays that are told apart by the same axes of devices inside of `jax.shard_map`."""
    varying = [jax.typeof(array).manual_axis_type.varying for array in (x, kernel)]
    missing = [tuple((varying[0] | varying[1]) - own) for own in varying]
    x, kernel = (
        jax.lax.pcast(array, names, to="varying") if names else array
        for array, names in zip((x, kernel), missing, strict=True)
    )
    return _convolution.bind(x, kernel, how=how)


def _as_written(x: Any, kernel: Any, *, how: _Window) -> Any:
    """(1) in the order of axes that it has."""
    return jax.lax.conv_general_dilated(x, kernel, *how[:5], precision=how.precision)


def _rearranged(x: Any, kernel: Any, *, how: _Window) -> Any:
    """(1) in the order [n, ..., c], [..., c, d] and [n, ..., d]."""
    (n, c, *places), (d, k, *windows), (m, e, *results) = how.axes
    last, inner = x.ndim - 1, tuple(range(1, x.ndim - 1))
    first = (0, last, *inner)
    axes = jax.lax.ConvDimensionNumbers(first, (last, last - 1, *range(last - 1)), first)
    y = _as_written(x.transpose(n, *places, c), kernel.transpose(*windows, k, d), how=how._replace(axes=axes))
    return jnp.moveaxis(y, range(x.ndim), (m, *results, e))


def _shape(x: Any, kernel: Any, *, how: _Window) -> Any:
    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (x, kernel)]
    y = jax.eval_shape(functools.partial(_as_written, how=how), *shapes)
    return x.update(shape=y.shape, dtype=y.dtype, weak_type=x.weak_type and kernel.weak_type)


def _lengths(x: Any, kernel: Any, y: Any, how: _Window) -> Any:
    """lo, X, K and O in each direction."""
    arrays, dilations = (x, kernel, y), (how.dilation, how.kernel_dilation, how.strides)
    sides = [[array.shape[axis] for axis in spec[2:]] for array, spec in zip(arrays, how.axes, strict=True)]
    spans = [_spans(each, dilation) for each, dilation in zip(sides, dilations, strict=True)]
    return zip((low for low, _ in how.padding), *spans, strict=True)


def _swap(spec: Sequence[int]) -> tuple[int, ...]:
    return (spec[1], spec[0], *spec[2:])


def _transpose_x(y: Any, x: Any, kernel: Any, *, how: _Window) -> Any:
    """(2)."""
    pads = tuple((k - 1 - low, size - o + low) for low, size, k, o in _lengths(x.aval, kernel, y, how))
    axes = jax.lax.ConvDimensionNumbers(how.axes.out_spec, _swap(how.axes.rhs_spec), how.axes.lhs_spec)
    window = _Window(how.dilation, pads, how.strides, how.kernel_dilation, axes, how.precision)
    return _bind(y, jax.lax.rev(kernel, how.axes.rhs_spec[2:]), window)


def _transpose_kernel(y: Any, x: Any, kernel: Any, *, how: _Window) -> Any:
    """(3)."""
    if 0 in y.shape:
        return ad.Zero(kernel.aval)
    pads = tuple((low, o + k - 1 - size - low) for low, size, k, o in _lengths(x, kernel.aval, y, how))
    of_x, of_kernel, of_y = (_swap(spec) for spec in how.axes)
    axes = jax.lax.ConvDimensionNumbers(of_x, of_y, of_kernel)
    window = _Window(how.kernel_dilation, pads, how.dilation, how.strides, axes, how.precision)
    return _bind(x, y, window)


def _batch(arrays: Sequence[Any], dims: Sequence[int | None], *, how: _Window) -> tuple[Any, int]:
    """Images of a batch are more images, and kernels of a batch more channels; both at once are left to JAX."""
    mapped = 0 if dims[1] is None else 1
    dim: Any = dims[mapped]
    num = arrays[mapped].shape[dim]
    if None not in dims or num == 0:
        return jax.vmap(functools.partial(_as_written, how=how), dims)(*arrays), 0
    merged, axis = list(arrays), how.axes.out_spec[mapped]
    merged[mapped] = _merge(arrays[mapped], dim, how.axes[mapped][0])
    y = _bind(merged[0], merged[1], how)
    return y.reshape(*y.shape[:axis], num, y.shape[axis] // num, *y.shape[axis + 1 :]), axis


def _merge(x: Any, dim: int, axis: int) -> Any:
    """The batch along `dim` becomes the slower part of what is `axis` without it."""
    x = jnp.moveaxis(x, dim, axis)
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


_convolution = Primitive("convolve")
_convolution.def_impl(_as_written)
_convolution.def_abstract_eval(_shape)
ad.defbilinear(_convolution, _transpose_x, _transpose_kernel)
batching.primitive_batchers[_convolution] = _batch
mlir.register_lowering(_convolution, mlir.lower_fun(_as_written, multiple_results=False))
mlir.register_lowering(_convolution, mlir.lower_fun(_rearranged, multiple_results=False), platform="cpu")
