r"""Monotone rational-quadratic splines: increasing maps of an interval to itself, the identity outside.

K + 1 knots (x_k, y_k) from (-B, -B) to (B, B) have slopes d_k, which are 1 at both ends. In bin k, of width w, height h
and mean slope s = h / w, with t = (x - x_k) / w:

    (1)  y = y_k + h (s t^2 + d_k t (1 - t)) / (s + (d_k + d_{k+1} - 2 s) t (1 - t))
    (2)  dy/dx = s^2 (d_{k+1} t^2 + 2 s t (1 - t) + d_k (1 - t)^2) / (s + (d_k + d_{k+1} - 2 s) t (1 - t))^2
    (3)  t of a given y is the root 2 c / (-b - sqrt(b^2 - 4 a c)) of a t^2 + b t + c, where with r = (y - y_k) / h
         a = s - d_k + r (d_k + d_{k+1} - 2 s),  b = d_k - r (d_k + d_{k+1} - 2 s),  c = -s r

Source: Neural Spline Flows, https://arxiv.org/abs/1906.04032.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.bijections.coupling import Elementwise
from jaxgen.distributions import pick
from jaxgen.types import Data

__all__ = ["rational_quadratic_spline"]


class _Bin(NamedTuple):
    """The bin of each element: its lower corner, width and height, and the slopes at its two ends."""

    x: Any
    y: Any
    width: Any
    height: Any
    left: Any
    right: Any


def rational_quadratic_spline(
    num_bins: int = 8,
    *,
    bound: float = 5.0,
    min_width: float = 1e-3,
    min_height: float = 1e-3,
    min_slope: float = 1e-3,
) -> Elementwise:
    """The family (1) of splines, for coupling and for autoregressive layers.

    The 3 K - 1 raw parameters of an element are K logits of widths, K logits of heights and K - 1 slopes at the inner
    knots before a softplus. Elements outside [-bound, bound] stay as they are.

    Args:
        num_bins: K, the number of bins, at least 1.
        bound: B, half the length of the interval.
        min_width: least width of a bin, as a part of the interval.
        min_height: least height of a bin, as a part of the interval.
        min_slope: least slope at a knot, below 1.

    Returns:
        An `Elementwise`, the identity where the raw parameters are zero.

    Raises:
        ValueError: if a number is out of range, or the least widths or heights do not fit into the interval.

    Source: Neural Spline Flows, https://arxiv.org/abs/1906.04032.
    """
    least = max(min_width, min_height)
    if num_bins < 1 or not (bound > 0 and math.isfinite(bound)):
        raise ValueError(f"a spline needs num_bins >= 1 and a finite bound > 0, got {num_bins} and {bound}")
    if not (min(min_width, min_height) > 0 and least * num_bins < 1 and 0 < min_slope < 1):
        raise ValueError(
            f"expected 0 < min_width, min_height < 1 / {num_bins} (one over num_bins) and 0 < min_slope < 1, got "
            f"{min_width}, {min_height} and {min_slope}"
        )
    to_one = math.log(math.expm1(1 - min_slope))

    def chosen(raw: Data, value: Data, *, by_height: bool) -> _Bin:
        """The bin of each x, or of each y."""
        widths, heights, slopes = jnp.split(raw, [num_bins, 2 * num_bins], axis=-1)
        x, y = _places(widths, min_width, bound), _places(heights, min_height, bound)
        index = (value[..., None] >= (y if by_height else x)[..., 1:-1]).sum(-1)
        (x, x_end), (y, y_end) = ((pick(k, index), pick(k, index + 1)) for k in (x, y))
        slopes = jnp.pad(slopes, [(0, 0)] * (slopes.ndim - 1) + [(1, 1)])  # at both ends 0, a slope of 1
        left, right = (min_slope + jax.nn.softplus(pick(slopes, place) + to_one) for place in (index, index + 1))
        return _Bin(x, y, x_end - x, y_end - y, left, right)

    def forward_and_log_det(raw: Data, x: Data) -> tuple[Data, Data]:
        inside = jnp.clip(x, -bound, bound)
        own = chosen(raw, inside, by_height=False)
        t = (inside - own.x) / own.width
        s, both = own.height / own.width, own.left + own.right - 2 * own.height / own.width
        y = own.y + own.height * t * (s * t + own.left * (1 - t)) / (s + both * t * (1 - t))  # (1)
        return _with_tails(x, bound, y, _log_slope(own, t))

    def inverse_and_log_det(raw: Data, z: Data) -> tuple[Data, Data]:
        inside = jnp.clip(z, -bound, bound)
        own = chosen(raw, inside, by_height=True)
        t = _root(own, (inside - own.y) / own.height)
        return _with_tails(z, bound, own.x + own.width * t, -_log_slope(own, t))

    return Elementwise(3 * num_bins - 1, forward_and_log_det, inverse_and_log_det)


def _places(logits: Data, least: float, bound: float) -> Data:
    """Where knots lie, `[..., K + 1]` from -bound to bound, from the logits `[..., K]` of their distances."""
    num_bins = logits.shape[-1]
    parts = least + (1 - least * num_bins) * jax.nn.softmax(logits, axis=-1)
    inner, end = jnp.cumsum(parts, axis=-1)[..., :-1], jnp.ones((*logits.shape[:-1], 1), logits.dtype)
    return bound * jnp.concatenate([-end, 2 * inner - 1, end], axis=-1)


def _log_slope(own: _Bin, t: Data) -> Data:
    """The logarithm of (2)."""
    s = own.height / own.width
    numerator = own.right * t**2 + 2 * s * t * (1 - t) + own.left * (1 - t) ** 2
    denominator = s + (own.left + own.right - 2 * s) * t * (1 - t)
    return 2 * jnp.log(s) + jnp.log(numerator) - 2 * jnp.log(denominator)


def _root(own: _Bin, r: Data) -> Data:
    """(3)."""
    s = own.height / own.width
    both = own.left + own.right - 2 * s
    a, b, c = s - own.left + r * both, own.left - r * both, -s * r
    return 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 1e-12)))


def _with_tails(x: Data, bound: float, y: Data, log_det: Data) -> tuple[Data, Data]:
    inside = abs(x) <= bound
    return jnp.where(inside, y, x), jnp.where(inside, log_det, 0.0)
