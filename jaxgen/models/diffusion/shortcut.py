r"""Shortcut models: a network learns steps of every length, each from two steps of half the length.

With the path x_t = alpha x + sigma eps, linear by default, and u(x_t, t, d) the mean velocity over t - d .. t:

    (1)  x_{t-d} = x_t - d u(x_t, t, d)
    (2)  u(x_t, t, 0) = v = alpha' x + sigma' eps in the mean: flow matching
    (3)  u(x_t, t, d) = (u(x_t, t, d/2) + u(x_{t-d/2}, t - d/2, d/2)) / 2, x_{t-d/2} by (1)
    (4)  d = (t_max - t_min) / 2^j, j = 0 .. K - 1, t - t_min a multiple of d; the halves of the shortest are 0 in (3)
    (5)  loss = E mean |u - stop_gradient(target)|^2, the target (3) in a share of the batch and (2) in the rest

The network is told (t, d). Time runs from data to noise; in the source it runs the other way.

Source: One Step Diffusion via Shortcut Models, https://arxiv.org/abs/2410.12557.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.distributions import sum_event
from jaxgen.nets import pure
from jaxgen.paths import Path
from jaxgen.samplers import jump
from jaxgen.samplers.jump import MeanVelocity
from jaxgen.teaching import averaged
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PRNGKey

__all__ = ["dyadic_steps", "shortcut", "two_halves"]

StepVelocity = Callable[[Any, Any, Any], Any]


def dyadic_steps(path: Path, key: PRNGKey, num: int, num_levels: int) -> tuple[Any, Any, Any]:
    """Draws t, d and the d that the halves are told, each `[num]`, by (4); every length is as likely as any other."""
    level_key, place_key = jax.random.split(key)
    level = jax.random.randint(level_key, (num,), 0, num_levels)
    d = (path.t_max - path.t_min) / 2.0**level
    place = jax.random.randint(place_key, (num,), 0, 2**level)
    told = jnp.where(level == num_levels - 1, 0.0, 0.5 * d)
    return path.t_min + d * (place + 1), d, told


def two_halves(step_velocity: StepVelocity, x_t: Data, t: Any, d: Any, told: Any) -> Data:
    """The right side of (3).

    Args:
        step_velocity: `(x_t, t, d) -> u`.
        x_t: `[n, ...]`.
        t: `[n]`.
        d: length of both halves together, `[n]`.
        told: the d that is given to `step_velocity` for each half, `[n]`.

    Returns:
        The mean of both velocities, like x.

    Source: https://arxiv.org/abs/2410.12557, equation 4.
    """
    first = step_velocity(x_t, t, told)
    half = (0.5 * d).reshape(-1, *(1,) * (x_t.ndim - 1))
    return 0.5 * (first + step_velocity(x_t - half * first, t - 0.5 * d, told))


def shortcut(
    net: nn.Module,
    shape: Sequence[int],
    *,
    path: Path | None = None,
    times: Callable[[Path, Any, int], Any] = paths.stratified_times,
    num_levels: int = 7,
    shortcut_share: float = 0.25,
    target_decay: float = 0.999,
    num_steps: int = 1,
) -> Model:
    """Builds a shortcut model of real data on the scale of 1.

    Args:
        net: a module called as `net(x, level, cond)` with `level [n, 2]`, the columns t and d; its output is like `x`.
        shape: shape of one example.
        path: the noise path; `paths.linear()` by default.
        times: `(path, key, n) -> t [n]`, the times of (2).
        num_levels: K; the shortest step is 1 / 2^(K - 1) of the whole.
        shortcut_share: share of the batch with the target (3), from 0 to 1.
        target_decay: decay of the moving average of the parameters that makes the target (3), in [0, 1); 0 for none.
        num_steps: evaluations of the network for each sample, a power of two of at most 2^(K - 1).

    Returns:
        A `Model` of data `[n, *shape]` with `sample`, `decode` (deterministic, of latents N(0, I)), and `score`, the
        one of u(x_t, t, 0). Where there is a moving average, its carry holds it as `target`.

    Raises:
        ValueError: if a number is out of range.

    Source: https://arxiv.org/abs/2410.12557.
    """
    if num_levels < 1 or num_steps not in (2**k for k in range(num_levels)):
        raise ValueError(
            f"expected num_levels >= 1 and num_steps a power of two of at most {2 ** (num_levels - 1)}, "
            f"got {num_levels} and {num_steps}"
        )
    if not (0 <= shortcut_share <= 1 and 0 <= target_decay < 1):
        raise ValueError(
            f"expected shortcut_share in [0, 1] and target_decay in [0, 1), got {shortcut_share} and {target_decay}"
        )
    path = paths.linear() if path is None else path
    shape = tuple(shape)

    def velocity(params: Params, cond: Cond) -> StepVelocity:
        return lambda x, t, d: pure.told(net, params, x, (t, d), cond)

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        params = pure.init_on_one(net, key, batch, jnp.zeros((1, *shape)), jnp.zeros((1, 2)))
        return params, {"target": params} if target_decay else ()

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        share_key, step_key, time_key, noise_key = jax.random.split(key, 4)
        num = batch.x.shape[0]
        jumps = paths.strata(share_key, num) < shortcut_share
        start, length, told = dyadic_steps(path, step_key, num, num_levels)
        t, d = jnp.where(jumps, start, times(path, time_key, num)), jnp.where(jumps, length, 0.0)
        x_t = paths.perturb(path, batch.x, t, jax.random.normal(noise_key, batch.x.shape))
        target_params, carry = averaged(params, carry, target_decay)
        halves = two_halves(velocity(target_params, batch.cond), x_t, t, d, told)
        chosen = jumps.reshape(-1, *(1,) * len(shape))
        target = jax.lax.stop_gradient(jnp.where(chosen, halves, paths.velocity(path, x_t, t, batch.x)))
        error = sum_event((velocity(params, batch.cond)(x_t, t, d) - target) ** 2) / x_t[0].size
        return error.mean(), (carry, {"shortcut_error": jnp.where(jumps, error, 0.0).mean()})

    def mean_velocity(params: Params, cond: Cond) -> MeanVelocity:
        return lambda x, t, s: velocity(params, cond)(x, t, t - s)

    sample, decode, score = jump.along(mean_velocity, path, shape, paths.uniform_grid, num_steps)
    return Model(init=init, loss=loss, sample=sample, score=score, decode=decode)
