"""The record of a noise path, and what follows from its two scales alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgen.types import Data

__all__ = ["Path", "Time", "log_snr", "scales", "slopes", "time_of_log_snr"]

Time = Num[Array, "..."] | float
"""One time for a whole batch, or `[n]`, one for each example."""


class Path(NamedTuple):
    """A noise path x_t = alpha(t) x_0 + sigma(t) eps.

    Attributes:
        alpha: `t -> scale of the data`, elementwise and differentiable.
        sigma: `t -> scale of the noise`, elementwise and differentiable.
        t_min: the time that stands for clean data; the noise there is what the samples keep.
        t_max: the time of pure noise.
    """

    alpha: Callable[[Any], Any]
    sigma: Callable[[Any], Any]
    t_min: float
    t_max: float


def _shaped(t: Time, like: Data) -> Any:
    t = jnp.asarray(t, jnp.float32)
    return t.reshape(t.shape + (1,) * (like.ndim - 1)) if t.ndim else t


def scales(path: Path, t: Time, like: Data) -> tuple[Any, Any]:
    """alpha(t) and sigma(t), shaped to multiply `like [n, ...]`; `t` is one number or `[n]`."""
    t = _shaped(t, like)
    return path.alpha(t), path.sigma(t)


def slopes(path: Path, t: Time, like: Data) -> tuple[Any, Any]:
    """alpha'(t) and sigma'(t) by autodiff, shaped like `scales`."""
    t = _shaped(t, like)
    return jax.jvp(lambda t: (path.alpha(t), path.sigma(t)), (t,), (jnp.ones_like(t),))[1]


def log_snr(path: Path, t: Time) -> Any:
    """ln(alpha(t)^2 / sigma(t)^2), elementwise."""
    t = jnp.asarray(t, jnp.float32)
    return 2 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))


def time_of_log_snr(path: Path, value: Num[Array, "..."]) -> Float[Array, "..."]:
    """The time in [t_min, t_max] whose log-SNR is `value`, by bisection to float32 precision, elementwise."""

    def halve(_: Any, bracket: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = bracket
        middle = 0.5 * (low + high)
        later = log_snr(path, middle) > value
        return jnp.where(later, middle, low), jnp.where(later, high, middle)

    low = jnp.full(value.shape, path.t_min, jnp.float32)
    return jax.lax.fori_loop(0, 48, halve, (low, jnp.full(value.shape, path.t_max, jnp.float32)))[1]
