r"""Sampling with mean velocities: the flow over an interval in one evaluation.

    (1)  u(x_t, t, s) = (x_t - x_s) / (t - s), the mean over s..t of the velocity of the flow through x_t
    (2)  x_s = x_t - (t - s) u(x_t, t, s), exactly, however long the interval
    (3)  u(x_t, t, t) = v(x_t, t), the velocity, of which the score is

Sources: Mean Flows for One-step Generative Modeling, https://arxiv.org/abs/2505.13447; One Step Diffusion via Shortcut
Models, https://arxiv.org/abs/2410.12557.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import Array, Float

from jaxgen import paths
from jaxgen.paths import Path, Time
from jaxgen.samplers.generate import check_times
from jaxgen.samplers.loop import scan_grid
from jaxgen.types import Cond, Data, Params, PRNGKey

__all__ = ["along", "decode"]

MeanVelocity = Callable[[Any, Any, Any], Any]


def decode(mean_velocity: MeanVelocity, path: Path, latent: Data, grid: Float[Array, " num_times"]) -> Data:
    """The data of latents N(0, I), with one evaluation for each interval of the grid.

    Args:
        mean_velocity: `(x_t, t, s) -> u` like x, with one t and one s for the whole batch.
        path: the noise path.
        latent: `[n, ...]`.
        grid: times, falling.

    Returns:
        Data `[n, ...]`.

    Raises:
        ValueError: if the times do not fall; traced ones pass.
    """
    check_times(grid)

    def step(key: PRNGKey, x: Data, t: Any, s: Any) -> Data:
        del key
        return x - (t - s) * mean_velocity(x, t, s)

    x = path.sigma(grid[0]) * latent
    return scan_grid(step, jax.random.key(0), x, grid)[0] / path.alpha(grid[-1])


def along(
    mean_velocity: Callable[[Any, Any], MeanVelocity],
    path: Path,
    shape: Sequence[int],
    grid: Callable[[Path, int], Any],
    num_steps: int,
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """`sample` and `decode` by (2), and `score` by (3), of a model with mean velocities.

    Args:
        mean_velocity: `(params, cond) -> u`, with u of (1).
        path: the noise path.
        shape: shape of one example.
        grid: `(path, num_steps) -> times` of samples, falling.
        num_steps: evaluations of u for each sample.
    """

    def to_data(params: Params, latent: Data, cond: Cond = None) -> Data:
        return decode(mean_velocity(params, cond), path, latent, grid(path, num_steps))

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        return to_data(params, jax.random.normal(key, (num, *shape)), cond)

    def score(params: Params, x: Data, t: Time, cond: Cond = None) -> Data:
        velocity = mean_velocity(params, cond)(x, t, t)
        return paths.SCORE.from_x0(path, x, t, paths.VELOCITY.to_x0(path, x, t, velocity))

    return sample, to_data, score
