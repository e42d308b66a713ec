r"""Bijections without parameters: rearrangements, affine scaling and the logit.

Rearrangements (`reshape`, `reverse`, `permute`, `squeeze`, `checkerboard`) have log-determinant zero and serve data
of any type, integers included; `affine` and `logit` are for reals.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxgen.bijections.base import Bijection, invert, no_params, zero_log_det
from jaxgen.types import Cond, Data, Params, PerExample

__all__ = ["affine", "checkerboard", "logit", "permutations", "permute", "reshape", "reverse", "sigmoid", "squeeze"]

Result = tuple[Data, PerExample]


def _rearrangement(forward: Callable[[Data], Data], inverse: Callable[[Data], Data]) -> Bijection:
    """A bijection that moves elements and changes none."""

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> Result:
        del params, cond
        return forward(x), zero_log_det(x)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> Result:
        del params, cond
        return inverse(z), zero_log_det(z)

    return Bijection(no_params, forward_and_log_det, inverse_and_log_det)


def affine(shift: float | int, scale: float | int) -> Bijection:
    """Shift and scale by constants: z = scale x + shift, log_det = D ln|scale| for D dimensions.

    `affine(-1, 2)` maps [0, 1] to [-1, 1].

    Args:
        shift: shift of the base, in units of z.
        scale: units of z for one unit of x, not 0.

    Raises:
        ValueError: if the scale is 0 or a number is not finite.
    """
    if scale == 0 or not math.isfinite(scale) or not math.isfinite(shift):
        raise ValueError(f"affine needs a finite shift and a finite scale other than 0, got {shift} and {scale}")

    def log_det(x: Data) -> PerExample:
        return zero_log_det(x) + math.prod(x.shape[1:]) * math.log(abs(scale))

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> Result:
        del params, cond
        return scale * x + shift, log_det(x)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> Result:
        del params, cond
        return (z - shift) / scale, -log_det(z)

    return Bijection(no_params, forward_and_log_det, inverse_and_log_det)


def logit(alpha: float = 0.05) -> Bijection:
    """From the unit interval to the reals, z = ln p - ln(1 - p) with p = alpha + (1 - 2 alpha) x.

    log_det = sum_d ln(1 - 2 alpha) - ln(p (1 - p)), and -ln(p (1 - p)) = softplus(z) + softplus(-z) serves both
    directions. The inverse of a z far out lies outside [0, 1], by alpha / (1 - 2 alpha) at most. Where p is 0 or 1, z
    and log_det are infinite; where x is outside [0, 1] they are NaN under `jax.jit`, which cannot refuse values.

    Args:
        alpha: keeps x = 0 and x = 1 from infinity, 0 <= alpha < 0.5 (with 0, x must lie inside the open interval).

    Raises:
        ValueError: if alpha is out of range; when called, if a value that is not traced is outside [0, 1].

    Source: Density estimation using Real NVP, section 4.1, https://arxiv.org/abs/1605.08803.
    """
    if not 0 <= alpha < 0.5:
        raise ValueError(f"alpha must be in [0, 0.5), got {alpha}")
    width = 1 - 2 * alpha

    def log_det(z: Data) -> PerExample:
        values = math.log(width) + jax.nn.softplus(z) + jax.nn.softplus(-z)
        return values.reshape(z.shape[0], -1).sum(-1)

    def forward_and_log_det(params: Params, x: Data, cond: Cond = None) -> Result:
        del params, cond
        _check_unit(x)
        z = jnp.log(alpha + width * x) - jnp.log(alpha + width * (1 - x))
        return z, log_det(z)

    def inverse_and_log_det(params: Params, z: Data, cond: Cond = None) -> Result:
        del params, cond
        return (jax.nn.sigmoid(z) - alpha) / width, -log_det(z)

    return Bijection(no_params, forward_and_log_det, inverse_and_log_det)


def _check_unit(x: Data) -> None:
    """Checks values in [0, 1]; those that are traced pass, as in `distributions.check_levels`."""
    if isinstance(x, jax.core.Tracer) or x.size == 0:
        return
    values = np.asarray(x)
    for value in (float(values.min()), float(values.max())):
        if not 0 <= value <= 1:
            raise ValueError(f"the logit is of values in [0, 1], got {value:g}")


def sigmoid() -> Bijection:
    """From the reals to the open unit interval, z = 1 / (1 + exp(-x)): the inverse of `logit(0)`."""
    return invert(logit(0.0))


def reshape(in_shape: Sequence[int], out_shape: Sequence[int]) -> Bijection:
    """From events of one shape to events of another, in row-major order.

    Args:
        in_shape: shape of one example of x.
        out_shape: shape of one example of z, with as many elements.

    Raises:
        ValueError: if the numbers of elements differ; when called, if an example has another shape.
    """
    if math.prod(in_shape) != math.prod(out_shape):
        raise ValueError(f"reshape needs shapes of equal size, got {tuple(in_shape)} and {tuple(out_shape)}")

    def to(old: Sequence[int], new: Sequence[int]) -> Callable[[Data], Data]:
        def function(x: Data) -> Data:
            if x.shape[1:] != tuple(old):
                raise ValueError(f"reshape expected examples of shape {tuple(old)}, got {x.shape[1:]}")
            return x.reshape(x.shape[0], *new)

        return function

    return _rearrangement(to(in_shape, out_shape), to(out_shape, in_shape))


def reverse() -> Bijection:
    """Reverses the order along the last axis."""
    return _rearrangement(lambda x: jnp.flip(x, -1), lambda z: jnp.flip(z, -1))


def permute(order: Sequence[int]) -> Bijection:
    """Reorders the last axis: z[..., i] = x[..., order[i]].

    Args:
        order: a permutation of 0, ..., d - 1.

    Raises:
        ValueError: if it is not a permutation.
    """
    order = tuple(order)
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"order must be a permutation of 0, ..., {len(order) - 1}, got {order}")
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    return _rearrangement(lambda x: x[..., jnp.array(order)], lambda z: z[..., jnp.array(back)])


def permutations(orders: Sequence[Sequence[int]], index: int | Int[Array, ""]) -> Bijection:
    """One of a batch of permutations of the last axis: z[..., i] = x[..., orders[index][i]].

    The index may be traced: `repeat(lambda i: chain(layer, permutations(orders, i)), len(orders))` is one loop whose
    layers reorder each in a way of its own.

    Args:
        orders: permutations of 0, ..., d - 1.
        index: which of them; a traced one outside of the batch is brought to its ends.

    Raises:
        ValueError: if one is not a permutation, their lengths differ, or the batch is empty.
    """
    orders = tuple(tuple(order) for order in orders)
    if not orders or any(sorted(order) != list(range(len(orders[0]))) for order in orders):
        raise ValueError(f"orders must be permutations of 0, ..., d - 1 with the same d, got {orders}")

    def order() -> Int[Array, " d"]:
        return jnp.array(orders)[index]

    return _rearrangement(lambda x: x[..., order()], lambda z: z[..., jnp.argsort(order())])


def _space_to_depth(x: Data) -> Data:
    """Each 2x2 block of `[n, h, w, c]` becomes one pixel of `[n, h/2, w/2, 4 c]`, corner after corner, row by row.

    Raises:
        ValueError: if `x` is no image or a side is odd.
    """
    if x.ndim != 4 or x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"expected images [n, h, w, c] with even sides, got shape {x.shape}")
    n, h, w, c = x.shape
    blocks = x.reshape(n, h // 2, 2, w // 2, 2, c)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def _depth_to_space(z: Data) -> Data:
    """Undoes `_space_to_depth`.

    Raises:
        ValueError: if `z` is no image or 4 does not divide its channels.
    """
    if z.ndim != 4 or z.shape[3] % 4:
        raise ValueError(f"expected images [n, h, w, 4 c], got shape {z.shape}")
    n, h, w, c = z.shape
    blocks = z.reshape(n, h, w, 2, 2, c // 4)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)


def squeeze() -> Bijection:
    """Space to depth: images `[n, h, w, c]` with even sides become `[n, h/2, w/2, 4 c]`.

    Source: Density estimation using Real NVP, section 3.6, https://arxiv.org/abs/1605.08803.
    """
    return _rearrangement(_space_to_depth, _depth_to_space)


def checkerboard() -> Bijection:
    """`squeeze` with the colours of a checkerboard in its two halves of the channels.

    The first 2 c channels of a pixel of z are the two pixels of its 2x2 block whose row and column add up to an even
    number, the last 2 c are the two others. A coupling of these halves is a coupling with the checkerboard mask of the
    paper, whose network works on a quarter of the pixels and of whose work nothing is masked away.

    Source: Density estimation using Real NVP, section 3.4, https://arxiv.org/abs/1605.08803.
    """

    def forward(x: Data) -> Data:
        even, odd_right, odd_left, even_last = jnp.split(_space_to_depth(x), 4, axis=-1)
        return jnp.concatenate([even, even_last, odd_right, odd_left], axis=-1)

    def inverse(z: Data) -> Data:
        even, even_last, odd_right, odd_left = jnp.split(z, 4, axis=-1)
        return _depth_to_space(jnp.concatenate([even, odd_right, odd_left, even_last], axis=-1))

    return _rearrangement(forward, inverse)
