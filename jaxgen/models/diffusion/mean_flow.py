r"""MeanFlow: a network learns the mean velocity of the flow over an interval, by what it must obey.

With the path x_t = alpha x + sigma eps and its velocity v = alpha' x + sigma' eps, linear by default, and s <= t:

    (1)  u(x_t, t, s) = 1 / (t - s) int_s^t v(x_r, r) dr,  u(x_t, t, t) = v(x_t, t),  x_s = x_t - (t - s) u
    (2)  u = v - (t - s) du/dt,  du/dt the derivative along (v, 1, 0) with s held: (1) differentiated
    (3)  loss = E w mean |u - stop_gradient(v - (t - s) du/dt)|^2,  w = stop_gradient((error + c)^-p)
    (4)  guided: v is replaced by omega v + (1 - omega) u(x_t, t, t | null), for examples of another label than null

The error in w is the mean over dimensions too, so that c is as many times larger than beside the source's sum. The
network is told (t, t - s). In a share of each batch s = t, where (3) is flow matching. The velocity in (3) is that
of the batch's pairs, whose mean given x_t is the flow's. Time runs from data to noise, as in the source; its r is s.

Source: Mean Flows for One-step Generative Modeling, https://arxiv.org/abs/2505.13447.
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
from jaxgen.nets.reading import check_read
from jaxgen.paths import Path
from jaxgen.samplers import generate, jump
from jaxgen.samplers.jump import MeanVelocity
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["identity", "mean_flow"]


def identity(mean_velocity: MeanVelocity, x_t: Data, t: Any, s: Any, velocity: Data) -> tuple[Data, Data]:
    """Both sides of (2), the right one without a gradient.

    Args:
        mean_velocity: `(x_t, t, s) -> u`.
        x_t: `[n, ...]`.
        t: `[n]`.
        s: `[n]`, at most t.
        velocity: v, `[n, ...]`.

    Returns:
        u and v - (t - s) du/dt, both like x.

    Source: https://arxiv.org/abs/2505.13447, equation 6.
    """
    u, slope = jax.jvp(lambda x, t: mean_velocity(x, t, s), (x_t, t), (velocity, jnp.ones_like(t)))
    gap = (t - s).reshape(-1, *(1,) * (x_t.ndim - 1))
    return u, jax.lax.stop_gradient(velocity - gap * slope)


def _intervals(path: Path, times: Callable[..., Any], share: float, key: PRNGKey, num: int) -> tuple[Any, Any]:
    """Later and earlier of two draws, equal in a share of the batch."""
    one_key, other_key, share_key = jax.random.split(key, 3)
    one, other = times(path, one_key, num), times(path, other_key, num)
    t = jnp.maximum(one, other)
    return t, jnp.where(paths.strata(share_key, num) < share, t, jnp.minimum(one, other))


def mean_flow(
    net: nn.Module,
    shape: Sequence[int],
    *,
    path: Path | None = None,
    times: Callable[[Path, Any, int], Any] | None = None,
    instant_share: float = 0.75,
    power: float = 1.0,
    offset: float = 1e-3,
    guidance_scale: float = 1.0,
    null: int | None = None,
    grid: Callable[[Path, int], Any] = paths.uniform_grid,
    num_steps: int = 1,
) -> Model:
    """Builds a MeanFlow model of real data on the scale of 1.

    Args:
        net: a module called as `net(x, level, cond)` with `level [n, 2]`, the columns t and t - s; its output is like
            `x`. Forward derivatives of it are taken, which are tame when its features of times are slow
            (`nets.time.slow_features`).
        shape: shape of one example.
        path: the noise path; `paths.linear()` by default.
        times: `(path, key, n) -> t [n]`, drawn twice; `logit_normal_times(mean=-0.4)` by default.
        instant_share: share of the batch with s = t, from 0 to 1.
        power: p of the weight in (3), at least 0.
        offset: c > 0 of the weight in (3).
        guidance_scale: omega in (4); 1 for no guidance.
        null: the label that stands for none, needed for guidance; `transforms.drop_condition` is what teaches it.
        grid: `(path, num_steps) -> times` of samples.
        num_steps: evaluations of the network for each sample.

    Returns:
        A `Model` of data `[n, *shape]` with `sample`, `decode` (deterministic, of latents N(0, I)), and `score`, the
        one of u(x_t, t, t).

    Raises:
        ValueError: if a number is out of range, the grid does not fall, or there is guidance without a null label; from
            `init`, if there is guidance and the network does not read its labels.

    Source: https://arxiv.org/abs/2505.13447.
    """
    if num_steps < 1 or not 0 <= instant_share <= 1:
        raise ValueError(f"expected num_steps >= 1 and instant_share in [0, 1], got {num_steps} and {instant_share}")
    if power < 0 or not offset > 0:
        raise ValueError(f"expected power >= 0 and offset > 0, got {power} and {offset}")
    if guidance_scale != 1 and null is None:
        raise ValueError(f"guidance_scale {guidance_scale} needs a null label, got null=None")
    path = paths.linear() if path is None else path
    generate.check_grid(grid, path, num_steps)
    times = paths.logit_normal_times(mean=-0.4) if times is None else times
    shape = tuple(shape)

    def mean_velocity(params: Params, cond: Cond) -> MeanVelocity:
        return lambda x, t, s: pure.told(net, params, x, (t, t - s), cond)

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        start = lambda: pure.init_on_one(net, key, batch, jnp.zeros((1, *shape)), jnp.zeros((1, 2)))  # noqa: E731
        if guidance_scale != 1:
            time = jnp.asarray(path.t_max)
            own = lambda params, x, cond: mean_velocity(params, cond)(x, time, time)  # noqa: E731
            check_read("mean_flow with guidance", own, jax.eval_shape(start), *batch)
        return start(), ()

    def guided(params: Params, cond: Cond, x_t: Data, t: Any, velocity: Data) -> Data:
        """(4)."""
        if null is None or guidance_scale == 1:
            return velocity
        free = mean_velocity(jax.lax.stop_gradient(params), jnp.full_like(cond, null))(x_t, t, t)
        scale = jnp.where(cond == null, 1.0, guidance_scale).reshape(-1, *(1,) * len(shape))
        return scale * velocity + (1 - scale) * free

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        time_key, noise_key = jax.random.split(key)
        t, s = _intervals(path, times, instant_share, time_key, batch.x.shape[0])
        x_t = paths.perturb(path, batch.x, t, jax.random.normal(noise_key, batch.x.shape))
        velocity = guided(params, batch.cond, x_t, t, paths.velocity(path, x_t, t, batch.x))
        u, target = identity(mean_velocity(params, batch.cond), x_t, t, s, velocity)
        error: PerExample = sum_event((u - target) ** 2) / x_t[0].size
        weight = jax.lax.stop_gradient((error + offset) ** -power)
        return (weight * error).mean(), (carry, {"squared_error": error.mean()})

    sample, decode, score = jump.along(mean_velocity, path, shape, grid, num_steps)
    return Model(init=init, loss=loss, sample=sample, score=score, decode=decode)
