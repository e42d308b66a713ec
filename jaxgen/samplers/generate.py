r"""From noise to data and back: the ends of the path around the one loop.

    (1)  sample: x_T = sigma(T) z, z ~ N(0, I), a stepper down the grid to t_0, x = x_0 / alpha(t_0)
    (2)  encode: x_0 = alpha(t_0) x, a deterministic stepper up the grid, z = x_T / sigma(T)
    (3)  decode: (1) from a given z

T and t_0 are the ends of the grid. The latent z of (2) is like the data and, under the model, N(0, I).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxgen.paths import Path
from jaxgen.samplers.loop import Denoiser, Stepper, integrate
from jaxgen.types import Cond, Data, Params, PRNGKey

__all__ = ["Ends", "along", "check_grid", "check_times", "decode", "encode", "generate"]

Grid = Float[Array, " num_times"]


class Ends(NamedTuple):
    """The ends of a path as functions of a model's parameters.

    Attributes:
        sample: `(params, key, shape, cond) -> x`, by (1).
        encode: `(params, key, x, cond=None) -> latent`, by (2); the key is not used.
        decode: `(params, latent, cond=None) -> x`, by (3) with a deterministic stepper.
    """

    sample: Callable[..., Any]
    encode: Callable[..., Any]
    decode: Callable[..., Any]


def check_grid(grid: Callable[[Path, int], Any], path: Path, num_steps: int) -> None:
    """Checks a grid before it is used; one whose values are traced (on a path that is being learned) passes.

    Args:
        grid: `(path, num_steps) -> times`.
        path: the noise path.
        num_steps: number of steps.

    Raises:
        ValueError: if `num_steps` is below 1, or the times do not fall.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    with jax.ensure_compile_time_eval():
        times = grid(path, num_steps)
    check_times(times)


def check_times(times: Grid) -> None:
    """Raises a ValueError unless the times fall; traced times, whose values nobody knows, pass."""
    if not isinstance(times, jax.core.Tracer) and (len(times) < 2 or not (np.diff(times) < 0).all()):
        raise ValueError(f"expected a grid of falling times, got {np.asarray(times)}")


def generate(
    stepper: Stepper, denoise: Denoiser, path: Path, key: PRNGKey, shape: Sequence[int], grid: Grid
) -> Float[Array, "n ..."]:
    """Draws samples by (1).

    Args:
        stepper: how to take one step.
        denoise: `(x_t, t) -> x0`.
        path: the noise path.
        key: random key.
        shape: `(n, ...)`, number of samples and shape of each.
        grid: times, falling.

    Returns:
        Samples `[n, ...]`.

    Raises:
        ValueError: if the times do not fall, here and in `encode` and `decode`; traced ones pass.
    """
    start_key, step_key = jax.random.split(key)
    return decode(stepper, denoise, path, step_key, jax.random.normal(start_key, tuple(shape)), grid)


def encode(stepper: Stepper, denoise: Denoiser, path: Path, x: Data, grid: Grid) -> Data:
    """The latent z of data `x [n, ...]` by (2); `grid` falls, as for `decode`."""
    check_times(grid)
    start = path.alpha(grid[-1]) * x
    return integrate(stepper, denoise, path, jax.random.key(0), start, grid[::-1]) / path.sigma(grid[0])


def decode(stepper: Stepper, denoise: Denoiser, path: Path, key: PRNGKey, latent: Data, grid: Grid) -> Data:
    """The data of latents z `[n, ...]` by (3); only stochastic steppers use the key."""
    check_times(grid)
    return integrate(stepper, denoise, path, key, path.sigma(grid[0]) * latent, grid) / path.alpha(grid[-1])


def along(
    denoiser: Callable[[Any, Any], Denoiser],
    path: Path,
    grid: Callable[[Path, int], Any],
    num_steps: int,
    *,
    stepper: Stepper,
    encoder: Stepper,
) -> Ends:
    """Binds a model's denoiser to what is done along a path.

    Args:
        denoiser: `(params, cond) -> ((x_t, t) -> x0)`.
        path: the noise path.
        grid: `(path, num_steps) -> times`, falling.
        num_steps: number of steps.
        stepper: how samples are drawn.
        encoder: a deterministic stepper for `encode` and `decode`.

    Returns:
        The `Ends`.
    """

    def sample(params: Params, key: PRNGKey, shape: Sequence[int], cond: Cond) -> Data:
        return generate(stepper, denoiser(params, cond), path, key, shape, grid(path, num_steps))

    def to_noise(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Data:
        del key
        return encode(encoder, denoiser(params, cond), path, x, grid(path, num_steps))

    def to_data(params: Params, latent: Data, cond: Cond = None) -> Data:
        key = jax.random.key(0)
        return decode(encoder, denoiser(params, cond), path, key, latent, grid(path, num_steps))

    return Ends(sample, to_noise, to_data)
