r"""Which two times of one trajectory a consistency loss compares: `(path, key, num, step) -> (t, s)`, t > s.

With the noise level n = sigma / alpha, n_0 at t_min and n_T at t_max:

    (1)  grid of N intervals:  n_i^(1 / rho) = n_0^(1 / rho) + i / N (n_T^(1 / rho) - n_0^(1 / rho)),
         (t, s) at the noise levels (n_{i+1}, n_i)
    (2)  p(i) = 1 / N, or p(i) = P(n_i < n < n_{i+1}) under a log-normal n, cut off at both ends
    (3)  doubling:  N(step) = min(first 2^floor(step / K'), last),  K' = floor(K / (floor(log2(last / first)) + 1))
    (4)  tuning:  n_t log-normal,  n_s = n_t (1 - (1 + k sigmoid(-b n_t)) / q^(stage + 1)),  stage = floor(step / K'')

(4) begins near the data, n_s = n_0, where the loss is a diffusion model's, and closes the gap from stage to stage.

Sources: Consistency Models, https://arxiv.org/abs/2303.01469; Improved Techniques for Training Consistency Models,
https://arxiv.org/abs/2310.14189 (2, 3); Consistency Models Made Easy, https://arxiv.org/abs/2406.14548 (4).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.paths.path import Path, log_snr, time_of_log_snr
from jaxgen.paths.times import log_normal_times
from jaxgen.types import PRNGKey, Scalar

__all__ = [
    "Pairs",
    "doubling",
    "inverse_gap_weight",
    "inverse_variance_weight",
    "log_normal_pairs",
    "tuning_pairs",
    "uniform_pairs",
]

Times = Float[Array, " n"]
Pairs = Callable[[Path, Any, int, Any], tuple[Any, Any]]
Count = Callable[[Any], Any] | int


def _noise(path: Path, t: Any) -> Any:
    return jnp.exp(-0.5 * log_snr(path, t))


def _time(path: Path, noise: Any) -> Any:
    return time_of_log_snr(path, -2 * jnp.log(noise))


def _root_ends(path: Path, rho: float) -> tuple[Any, Any]:
    return _noise(path, path.t_min) ** (1 / rho), _noise(path, path.t_max) ** (1 / rho)


def _interval(path: Path, index: Any, num: Any, rho: float) -> tuple[Times, Times]:
    """The interval of (1) with a given index."""
    low, high = _root_ends(path, rho)
    edge = lambda i: _time(path, (low + i / num * (high - low)) ** rho)  # noqa: E731
    return edge(index + 1), edge(index)


def _count(num_intervals: Count) -> Callable[[Any], Any]:
    if not isinstance(num_intervals, int):
        return num_intervals
    if num_intervals < 1:
        raise ValueError(f"num_intervals must be at least 1, got {num_intervals}")
    return lambda step: jnp.full_like(step, num_intervals)


def doubling(num_steps: int, *, first: int = 10, last: int = 1280) -> Callable[[Any], Any]:
    """The number of intervals (3): it doubles at equal distances over a training of `num_steps` steps.

    Args:
        num_steps: K, steps of the whole training.
        first: intervals at the start.
        last: the most intervals.

    Returns:
        `step -> num_intervals`.

    Raises:
        ValueError: unless 1 <= first <= last, and the training is long enough for every stage.

    Source: https://arxiv.org/abs/2310.14189, section 3.4.
    """
    if not 1 <= first <= last:
        raise ValueError(f"expected 1 <= first <= last, got {first} and {last}")
    num_stages = math.floor(math.log2(last / first)) + 1
    if num_steps < num_stages:
        raise ValueError(f"num_steps must be at least {num_stages}, one for each doubling, got {num_steps}")
    every = num_steps // num_stages
    return lambda step: jnp.minimum(first * 2 ** jnp.minimum(step // every, num_stages), last)


def uniform_pairs(num_intervals: Count, *, rho: float = 7.0) -> Pairs:
    """Neighbours on the grid (1), each interval as often as any other.

    Args:
        num_intervals: N, or a function `step -> N`.
        rho: the grid's exponent.

    Returns:
        `(path, key, num, step) -> (t, s)`.

    Raises:
        ValueError: if `num_intervals` is below 1.

    Source: Consistency Models, https://arxiv.org/abs/2303.01469, section 5.
    """
    count = _count(num_intervals)

    def pairs(path: Path, key: PRNGKey, num: int, step: Scalar) -> tuple[Times, Times]:
        num_intervals = count(step)
        return _interval(path, jax.random.randint(key, (num,), 0, num_intervals), num_intervals, rho)

    return pairs


def log_normal_pairs(num_intervals: Count, *, mean: float = -1.1, scale: float = 2.0, rho: float = 7.0) -> Pairs:
    """Neighbours on the grid (1), each interval as often as a log-normal noise level falls into it (2).

    Args:
        num_intervals: N, or a function `step -> N`, such as `doubling(...)`.
        mean: of ln n.
        scale: standard deviation of ln n.
        rho: the grid's exponent.

    Returns:
        `(path, key, num, step) -> (t, s)`.

    Raises:
        ValueError: if `num_intervals` is below 1.

    Source: Improved Techniques for Training Consistency Models, https://arxiv.org/abs/2310.14189, section 3.5.
    """
    count = _count(num_intervals)

    def pairs(path: Path, key: PRNGKey, num: int, step: Scalar) -> tuple[Times, Times]:
        lower, upper = ((-0.5 * log_snr(path, t) - mean) / scale for t in (path.t_min, path.t_max))
        noise = jnp.exp(mean + scale * jax.random.truncated_normal(key, lower, upper, (num,)))
        (low, high), num_intervals = _root_ends(path, rho), count(step)
        index = jnp.floor(num_intervals * (noise ** (1 / rho) - low) / (high - low))
        return _interval(path, jnp.clip(index, 0, num_intervals - 1), num_intervals, rho)

    return pairs


def tuning_pairs(
    steps_per_stage: int, *, q: float = 2.0, k: float = 8.0, b: float = 1.0, mean: float = -1.1, scale: float = 2.0
) -> Pairs:
    """The pairs of easy consistency tuning (4), for a training that starts from a diffusion model's parameters.

    Args:
        steps_per_stage: K'', training steps in each stage.
        q: how much smaller the gap gets from stage to stage, above 1.
        k: how much wider the gap is at low noise.
        b: where noise counts as low, in units of one over the noise level.
        mean: of ln n_t.
        scale: standard deviation of ln n_t.

    Returns:
        `(path, key, num, step) -> (t, s)`.

    Raises:
        ValueError: unless `steps_per_stage` is at least 1 and q above 1.

    Source: Consistency Models Made Easy, https://arxiv.org/abs/2406.14548, section 3.3.
    """
    if steps_per_stage < 1 or not q > 1:
        raise ValueError(f"expected steps_per_stage >= 1 and q > 1, got {steps_per_stage} and {q}")
    times = log_normal_times(mean=mean, scale=scale)

    def pairs(path: Path, key: PRNGKey, num: int, step: Scalar) -> tuple[Times, Times]:
        t = times(path, key, num)
        noise, stage = _noise(path, t), jnp.asarray(step) // steps_per_stage
        kept = 1 - (1 + k * jax.nn.sigmoid(-b * noise)) / q ** (stage + 1.0)
        return t, _time(path, noise * jnp.maximum(kept, 1e-9))

    return pairs


def inverse_gap_weight(path: Path, t: Times, s: Times) -> Times:
    """1 / (n_t - n_s), at most 1e6.

    Source: https://arxiv.org/abs/2310.14189, equation 12.
    """
    return 1 / jnp.maximum(_noise(path, t) - _noise(path, s), 1e-6)


def inverse_variance_weight(*, sigma_data: float = 0.5) -> Callable[[Path, Any, Any], Any]:
    """1 / n_t^2 + 1 / sigma_data^2, the weight of a denoiser's squared error in EDM.

    On a distance that is not squared it leaves nearly all of the loss to the lowest noise: there, `inverse_gap_weight`.

    Source: https://arxiv.org/abs/2406.14548, section 3.3.
    """

    def weight(path: Path, t: Times, s: Times) -> Times:
        del s
        return 1 / _noise(path, t) ** 2 + 1 / sigma_data**2

    return weight
