"""At which times a loss looks: `(path, key, num) -> t [num]`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.paths.path import Path, time_of_log_snr
from jaxgen.types import PerExample, PRNGKey

__all__ = [
    "independent_times",
    "log_normal_times",
    "logit_normal_times",
    "strata",
    "stratified_mean",
    "stratified_times",
]

Times = Float[Array, " n"]


def strata(key: PRNGKey, num: int) -> Times:
    """Numbers (u + i / n) mod 1 with one u: each is uniform, and together they cover [0, 1) evenly."""
    return (jax.random.uniform(key) + jnp.arange(num) / num) % 1


def stratified_mean(
    function: Callable[[Any, Any], Any], time_key: PRNGKey, noise_key: PRNGKey, num: int, *, num_parts: int
) -> PerExample:
    """The mean of `function(key, u)` over u in [0, 1), one u `[num]` and one key in each of `num_parts` equal parts.

    It is unbiased for the integral over u, of each example. Parts are done one after another, to save memory.
    """
    share = strata(time_key, num)

    def part(index_and_key: tuple[Any, PRNGKey]) -> PerExample:
        index, key = index_and_key
        return function(key, (index + share) / num_parts)

    return jax.lax.map(part, (jnp.arange(num_parts), jax.random.split(noise_key, num_parts))).mean(0)


def independent_times(path: Path, key: PRNGKey, num: int) -> Times:
    """Times drawn uniformly from [t_min, t_max]."""
    return jax.random.uniform(key, (num,), minval=path.t_min, maxval=path.t_max)


def stratified_times(path: Path, key: PRNGKey, num: int) -> Times:
    """Uniform times that cover [t_min, t_max] evenly over the batch: less noise in the loss.

    Source: Variational Diffusion Models, https://arxiv.org/abs/2107.00630, appendix I.
    """
    return path.t_min + (path.t_max - path.t_min) * strata(key, num)


def log_normal_times(*, mean: float = -1.2, scale: float = 1.2) -> Callable[[Path, Any, int], Any]:
    """Times at which ln(sigma / alpha) ~ N(mean, scale^2), cut off at the ends of the path.

    Source: Elucidating the Design Space of Diffusion-Based Generative Models, https://arxiv.org/abs/2206.00364,
    table 1.
    """

    def times(path: Path, key: PRNGKey, num: int) -> Times:
        return time_of_log_snr(path, -2 * (mean + scale * jax.random.normal(key, (num,))))

    return times


def logit_normal_times(*, mean: float = 0.0, scale: float = 1.0) -> Callable[[Path, Any, int], Any]:
    """Times whose share of [t_min, t_max] is sigmoid(mean + scale z), z ~ N(0, 1).

    Source: Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, https://arxiv.org/abs/2403.03206,
    section 3.1.
    """

    def times(path: Path, key: PRNGKey, num: int) -> Times:
        share = jax.nn.sigmoid(mean + scale * jax.random.normal(key, (num,)))
        return path.t_min + (path.t_max - path.t_min) * share

    return times
