r"""Sampling with mean velocities: the flow over an interval in one evaluation.

    (1)  u(x_t, t, s) = (x_t - x_s) / (t - s), the mean over s..t of the velocity of the flow through x_t
    (2)  x_s = x_t - (t - s) u(x_t, t, s), exactly, however long the interval

Sources: Mean Flows for One-step Generative Modeling, https://arxiv.org/abs/2505.13447; One Step Diffusion via Shortcut
Models, https://arxiv.org/abs/2410.12557.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from jaxgen.paths import Path
from jaxgen.samplers.generate import check_times
from jaxgen.samplers.loop import scan_grid
from jaxgen.types import Data, PRNGKey

__all__ = ["decode"]


def decode(
    mean_velocity: Callable[[Any, Any, Any], Any], path: Path, latent: Data, grid: Float[Array, " num_times"]
) -> Data:
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
