"""Grids of times, from noise to data, for samplers."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.paths.path import Path, log_snr, time_of_log_snr

__all__ = ["karras_grid", "log_snr_grid", "quadratic_grid", "trailing_grid", "uniform_grid"]

Grid = Float[Array, " num_times"]


def uniform_grid(path: Path, num_steps: int) -> Grid:
    """`[num_steps + 1]` times from t_max down to t_min, evenly spaced."""
    return jnp.linspace(path.t_max, path.t_min, _positive(num_steps) + 1)


def quadratic_grid(path: Path, num_steps: int) -> Grid:
    """`[num_steps + 1]` times from t_max down to t_min, their distances to t_min evenly spaced under the square root.

    Source: Denoising Diffusion Implicit Models, https://arxiv.org/abs/2010.02502, appendix D.2.
    """
    share = jnp.linspace(1.0, 0.0, _positive(num_steps) + 1)
    return path.t_min + (path.t_max - path.t_min) * share**2


def trailing_grid(path: Path, num_steps: int) -> Grid:
    """`[num_steps + 1]` whole times of a `paths.discrete` path, evenly spaced from its last one down, then -1.

    t_i = round((t_max + 1) (1 - i / num_steps)) - 1: the last step of all is always visited, and -1 is clean data.

    Source: Common Diffusion Noise Schedules and Sample Steps are Flawed, https://arxiv.org/abs/2305.08891, table 2.
    """
    return jnp.round((path.t_max + 1) * jnp.linspace(1.0, 0.0, _positive(num_steps) + 1)) - 1


def log_snr_grid(path: Path, num_steps: int) -> Grid:
    """`[num_steps + 1]` times from t_max down to t_min, evenly spaced in log-SNR."""
    return _spaced(path, num_steps, lambda value: value, lambda value: value)


def karras_grid(path: Path, num_steps: int, *, rho: float = 7.0) -> Grid:
    """`[num_steps + 1]` times from t_max down to t_min, evenly spaced in (sigma / alpha)^(1 / rho).

    Source: Elucidating the Design Space of Diffusion-Based Generative Models, https://arxiv.org/abs/2206.00364,
    equation 5.
    """
    return _spaced(path, num_steps, lambda value: jnp.exp(-0.5 * value / rho), lambda root: -2 * rho * jnp.log(root))


def _spaced(path: Path, num_steps: int, to: Callable[[Any], Any], back: Callable[[Any], Any]) -> Grid:
    """Times from t_max down to t_min, evenly spaced in `to(log_snr)`, whose inverse is `back`."""
    ends = jnp.array([path.t_max, path.t_min])
    first, last = to(log_snr(path, ends))
    inner = jnp.linspace(first, last, _positive(num_steps) + 1)[1:-1]
    return jnp.concatenate([ends[:1], time_of_log_snr(path, back(inner)), ends[1:]])


def _positive(num_steps: int) -> int:
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    return num_steps
