r"""Editing with a denoiser: every function starts, ends or conditions the one loop in another way.

    (1)  sdedit:       x_t = alpha_t x + sigma_t z, then a stepper from t down: near x for small t, forgotten for large
    (2)  inpaint:      after each step t -> s the known part becomes alpha_s x + sigma_s z; the grid goes down, and
                       `num_resamples - 1` times back up over every stretch of `jump_length` steps by `moves.diffuse`
    (3)  condition:    E[x0 | x_t, y] = x0 + (sigma_t^2 / alpha_t) d/dx_t ln N(y; A(x0(x_t)), r_t^2 I),
                       r_t^2 = noise^2 + spread^2 sigma_t^2 / (spread^2 alpha_t^2 + sigma_t^2)
    (4)  interpolate:  decode(sin((1 - w) o) / sin(o) z_a + sin(w o) / sin(o) z_b),  o the angle between the latents

(2) with one pass has the right distribution of the known part at every time, but the rest follows it a step behind,
and fits it too loosely; passes bring it nearer to the posterior. (3) is exact where Var[x0 | x_t] is r_t^2 - noise^2 in
all directions that A measures, as for Gaussian data of standard deviation `spread` and a measurement A of orthonormal
rows; it then works with any stepper.

Sources: SDEdit, https://arxiv.org/abs/2108.01073; RePaint, https://arxiv.org/abs/2201.09865 (2); Diffusion Posterior
Sampling, https://arxiv.org/abs/2209.14687, and Pseudoinverse-Guided Diffusion Models,
https://openreview.net/forum?id=9_gsMA8MRKQ (3, the second for r_t); DDIM, https://arxiv.org/abs/2010.02502 (4).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from jaxgen import paths
from jaxgen.distributions import sum_event
from jaxgen.paths import Path, Time
from jaxgen.samplers.generate import Grid, check_times, decode, encode
from jaxgen.samplers.loop import Denoiser, State, Stepper, integrate
from jaxgen.samplers.moves import diffuse
from jaxgen.types import Data, PRNGKey, Scalar

__all__ = ["condition", "inpaint", "interpolate", "sdedit"]


def sdedit(stepper: Stepper, denoise: Denoiser, path: Path, key: PRNGKey, x: Data, grid: Grid) -> Data:
    """Samples near `x [n, ...]` by (1).

    Args:
        stepper: how to take one step.
        denoise: `(x_t, t) -> x0`.
        path: the noise path.
        key: random key.
        x: what to start from.
        grid: times, falling from t.

    Returns:
        Samples, like `x`, after `num_steps * stepper.num_evaluations` evaluations.

    Raises:
        ValueError: if the times do not fall; traced ones pass.
    """
    check_times(grid)
    noise_key, step_key = jax.random.split(key)
    x_t = paths.perturb(path, x, grid[0], jax.random.normal(noise_key, x.shape))
    return integrate(stepper, denoise, path, step_key, x_t, grid) / path.alpha(grid[-1])


def _with_jumps(num_steps: int, jump_length: int, num_resamples: int) -> Shaped[np.ndarray, " num_times"]:
    """Which times of a grid (2) visits, in order."""
    visited = [np.zeros(1, int)]
    for first in range(0, num_steps, jump_length):
        stretch = np.arange(first, min(first + jump_length, num_steps) + 1)
        visited += [stretch[1:], stretch[-2::-1]] * (num_resamples - 1) + [stretch[1:]]
    return np.concatenate(visited)


def _inpainting(stepper: Stepper, x: Data, known: Any) -> Stepper:
    """A stepper that goes down with the known part replaced, and up by adding noise."""

    def step(denoise: Denoiser, path: Path, key: PRNGKey, state: State, t: Time, s: Time) -> State:
        step_key, noise_key = jax.random.split(key)

        def down() -> State:
            new = stepper.step(denoise, path, step_key, state, t, s)
            right = paths.perturb(path, x, s, jax.random.normal(noise_key, x.shape))
            return new._replace(x=jnp.where(known, right, new.x))

        def up() -> State:
            return State(diffuse(path, noise_key, state.x, t, s), stepper.init(state.x))

        return jax.lax.cond(s < t, down, up)

    return Stepper(stepper.init, step, stepper.num_evaluations)


def inpaint(
    stepper: Stepper,
    denoise: Denoiser,
    path: Path,
    key: PRNGKey,
    x: Data,
    known: Bool[Array, "#n ..."],
    grid: Grid,
    *,
    jump_length: int = 1,
    num_resamples: int = 1,
) -> Data:
    """Samples what is not known of `x [n, ...]` by (2).

    Args:
        stepper: how to take one step.
        denoise: `(x_t, t) -> x0`.
        path: the noise path.
        key: random key.
        x: data, of which only the known part matters.
        known: where x is given; broadcast to x.
        grid: times, falling.
        jump_length: steps in a stretch that is passed again.
        num_resamples: passes over every stretch; 1 is replacement alone.

    Returns:
        x with the rest filled in, after `num_steps * num_resamples * stepper.num_evaluations` evaluations.

    Raises:
        ValueError: if `jump_length` or `num_resamples` is below 1, or the times do not fall; traced ones pass.

    Source: RePaint, https://arxiv.org/abs/2201.09865, algorithm 1.
    """
    if min(jump_length, num_resamples) < 1:
        raise ValueError(f"jump_length and num_resamples must be at least 1, got {jump_length} and {num_resamples}")
    check_times(grid)
    start_key, step_key = jax.random.split(key)
    visited = _with_jumps(grid.shape[0] - 1, jump_length, num_resamples)
    start = path.sigma(grid[0]) * jax.random.normal(start_key, x.shape)
    filled = integrate(_inpainting(stepper, x, known), denoise, path, step_key, start, grid[visited])
    return jnp.where(known, x, filled / path.alpha(grid[-1]))


def condition(
    denoise: Denoiser,
    path: Path,
    y: Float[Array, "n ..."],
    measure: Callable[[Any], Any],
    *,
    noise: Scalar = 0.0,
    spread: Scalar = 1.0,
) -> Denoiser:
    """The denoiser of data of which a measurement is given, by (3).

    Args:
        denoise: `(x_t, t) -> x0`, differentiable.
        path: the noise path.
        y: the measurement of each example.
        measure: A, `x [n, ...] -> like y`, row by row; to inpaint, the known part.
        noise: standard deviation of the measurement's noise.
        spread: standard deviation of the data.

    Returns:
        `(x_t, t) -> x0`, for any stepper; it costs the evaluation and its gradient.

    Source: https://arxiv.org/abs/2209.14687, with the variance of https://openreview.net/forum?id=9_gsMA8MRKQ.
    """

    def conditioned(x_t: Data, t: Time) -> Data:
        alpha, sigma = paths.scales(path, t, x_t)
        variance = noise**2 + (spread * sigma) ** 2 / ((spread * alpha) ** 2 + sigma**2)

        def log_likelihood(x_t: Data) -> tuple[Any, Data]:
            x0 = denoise(x_t, t)
            return -0.5 * sum_event((y - measure(x0)) ** 2 / variance).sum(), x0

        slope, x0 = jax.grad(log_likelihood, has_aux=True)(x_t)
        return x0 + sigma**2 / alpha * slope

    return conditioned


def _slerp(z_a: Data, z_b: Data, share: Scalar) -> Data:
    """(4), between latents."""
    norm = lambda z: jnp.sqrt(sum_event(z**2))  # noqa: E731
    angle = jnp.arccos(jnp.clip(sum_event(z_a * z_b) / (norm(z_a) * norm(z_b)), -1 + 1e-6, 1 - 1e-6))
    weights = jnp.sin(jnp.array([1 - share, share])[:, None] * angle) / jnp.sin(angle)
    first, second = weights.reshape(2, -1, *(1,) * (z_a.ndim - 1))
    return first * z_a + second * z_b


def interpolate(
    stepper: Stepper, denoise: Denoiser, path: Path, x_a: Data, x_b: Data, shares: Float[Array, " k"], grid: Grid
) -> Shaped[Array, "k n ..."]:
    """Data between `x_a [n, ...]` and `x_b [n, ...]` by (4).

    Args:
        stepper: a deterministic stepper.
        denoise: `(x_t, t) -> x0`.
        path: the noise path.
        x_a: what share 0 gives back, up to the error of the steps.
        x_b: what share 1 gives back.
        shares: w, from 0 to 1.
        grid: times, falling.

    Returns:
        `[k, n, ...]`, one for each share, after `(2 + k) * num_steps * stepper.num_evaluations` evaluations.
    """
    z_a, z_b = (encode(stepper, denoise, path, x, grid) for x in (x_a, x_b))
    between = lambda share: decode(  # noqa: E731
        stepper, denoise, path, jax.random.key(0), _slerp(z_a, z_b, share), grid
    )
    return jax.lax.map(between, shares)
