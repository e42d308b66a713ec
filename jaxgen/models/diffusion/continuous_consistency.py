r"""Consistency models in continuous time (sCM): the loss compares a point with its neighbour on the flow, in the limit.

The clock is the angle a with tan a = sigma / (s alpha), for data of standard deviation s, and y = x_t / r of variance
1, r^2 = s^2 alpha^2 + sigma^2: on every path this is TrigFlow, y = cos(a) x / s + sin(a) eps. The parametrisation is
`paths.trigflow(sigma_data=s)` with the network F:

    (1)  f / s = cos(a) y + sin(a) F(y, a),  equal to y where a = 0
    (2)  dy/da = cos(a) eps - sin(a) x / s, with the x and eps of the batch, or a teacher's of x_t
    (3)  g = cos(a) d(f / s)/da = cos(a)^2 (dy/da + F) + rho (dF/dl - cos(a) sin(a) y),  l = ln(sigma / alpha)
    (4)  loss = E exp(w(t)) mean |F - stop_gradient(F - g / (|g| + c))|^2 - w(t)

A consistency function does not change along the flow, so that g = 0 there. As da/dl = sin(a) cos(a), the derivative
of the network in (3) is one forward derivative along (dx_t/dl, dt/dl), and stays finite where a goes to 0. rho rises
from 0 to 1 while training warms up; w, a learned function of l, evens out the losses of different times. The source's
F is -F here.

Source: Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, https://arxiv.org/abs/2410.11081.
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
from jaxgen.nets.time import time_features
from jaxgen.paths import Path
from jaxgen.samplers import generate
from jaxgen.samplers.renoise import renoised
from jaxgen.teaching import teacher_denoiser
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey, Scalar

__all__ = ["continuous_consistency", "log_weight", "tangent"]

NUM_FEATURES = 16
"""Features of l, cosines and sines, of which w in (4) is a linear function."""


def tangent(
    path: Path,
    network: Callable[[Any, Any], Any],
    x_t: Data,
    t: Any,
    x0: Data,
    eps: Data,
    *,
    sigma_data: float,
    share: Scalar = 1.0,
) -> tuple[Data, Data]:
    """F and g of (3).

    Args:
        path: the noise path.
        network: `(y, a) -> F`.
        x_t: `[n, ...]`.
        t: `[n]`.
        x0: x in (2), `[n, ...]`.
        eps: the noise in (2).
        sigma_data: s.
        share: rho.

    Returns:
        F and g, both like x.

    Source: https://arxiv.org/abs/2410.11081, section 4.
    """
    (alpha, sigma), (d_alpha, d_sigma) = paths.scales(path, t, x_t), paths.slopes(path, t, x_t)
    dt = 1 / (d_sigma / sigma - d_alpha / alpha)  # dt/dl
    dx = dt * (d_alpha * x0 + d_sigma * eps)
    called = lambda x, t: paths.network_output(path, paths.trigflow(sigma_data=sigma_data), network, x, t)  # noqa: E731
    out, d_out = jax.jvp(called, (x_t, t), (dx, dt.reshape(t.shape)))
    spread = jnp.sqrt((sigma_data * alpha) ** 2 + sigma**2)
    cos, sin, y = sigma_data * alpha / spread, sigma / spread, x_t / spread
    dy = cos * eps - sin * x0 / sigma_data
    return out, cos**2 * (dy + out) + share * (d_out - cos * sin * y)


def log_weight(params: Params, path: Path, t: Any) -> PerExample:
    """The w of (4): linear in features of l."""
    return time_features(-0.5 * paths.log_snr(path, t), NUM_FEATURES) @ params["kernel"] + params["bias"]


def _normalised(g: Data, offset: float) -> Data:
    norm = jnp.sqrt(sum_event(g**2)).reshape(-1, *(1,) * (g.ndim - 1))
    return g / (norm + offset)


def continuous_consistency(
    net: nn.Module,
    shape: Sequence[int],
    *,
    path: Path | None = None,
    sigma_data: float = 0.5,
    times: Callable[[Path, Any, int], Any] | None = None,
    teacher: Model | None = None,
    num_warmup_steps: int = 10_000,
    offset: float = 0.1,
    grid: Callable[[Path, int], Any] = paths.karras_grid,
    num_steps: int = 1,
) -> Model:
    """Builds a consistency model that is trained in continuous time: distilled from a teacher, or from data alone.

    Args:
        net: a module called as `net(x, level, cond)`, as in `diffusion` with `paths.trigflow(sigma_data=...)`;
            forward derivatives of it are taken, so that its features of the angle must be slow
            (`nets.time.slow_features`).
        shape: shape of one example.
        path: the noise path; `paths.cosine()` by default.
        sigma_data: s, the standard deviation of the data.
        times: `(path, key, n) -> t [n]`; `log_normal_times(mean=-1.0, scale=1.4)` by default.
        teacher: a model with a `score` on the same path, whose parameters lie in `carry["teacher"]`
            (`teaching.with_teacher` puts them there).
        num_warmup_steps: steps over which rho rises to 1; 0 for none.
        offset: c > 0.
        grid: `(path, num_steps) -> times` of samples.
        num_steps: evaluations of the network for each sample.

    Returns:
        A `Model` of data `[n, *shape]` with `sample`, and `decode`, by one step from latents N(0, I). Parameters are
        `{"net": ..., "weight": ...}`, those of F and of w. The value of its loss does not tell how good the samples
        are; the metric `tangent`, the mean of |g|, falls to 0 as f becomes consistent with a teacher.

    Raises:
        ValueError: if the teacher has no score, the grid does not fall, or a number is out of range.

    Source: https://arxiv.org/abs/2410.11081.
    """
    if num_steps < 1 or num_warmup_steps < 0 or not offset > 0:
        raise ValueError(
            "expected num_steps >= 1, num_warmup_steps >= 0 and offset > 0, "
            f"got {num_steps}, {num_warmup_steps} and {offset}"
        )
    path = paths.cosine() if path is None else path
    generate.check_grid(grid, path, num_steps)
    denoise = None if teacher is None else teacher_denoiser(teacher, path)
    times = paths.log_normal_times(mean=-1.0, scale=1.4) if times is None else times
    parametrization, shape = paths.trigflow(sigma_data=sigma_data), tuple(shape)

    def network(params: Params, cond: Cond) -> Callable[[Any, Any], Any]:
        return lambda x, level: pure.apply(net, params["net"], x, level, cond)

    def function(params: Params, cond: Cond) -> Callable[[Any, Any], Any]:
        return paths.denoiser(path, parametrization, network(params, cond))

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        params = pure.init_on_one(net, key, batch, jnp.zeros((1, *shape)), jnp.zeros(1))
        carry = {"step": jnp.zeros((), jnp.int32)}
        if teacher is not None:
            carry["teacher"] = teacher.init(key, batch)[0]
        return {"net": params, "weight": {"kernel": jnp.zeros(NUM_FEATURES), "bias": jnp.zeros(())}}, carry

    def split(carry: Carry, batch: Batch, noise: Data, x_t: Data, t: Any) -> tuple[Data, Data]:
        """The x and eps of (2)."""
        if denoise is None:
            return batch.x, noise
        x0 = denoise(carry["teacher"], x_t, t, batch.cond)
        return x0, paths.eps(path, x_t, t, x0)

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        time_key, noise_key = jax.random.split(key)
        t = times(path, time_key, batch.x.shape[0])
        noise = jax.random.normal(noise_key, batch.x.shape)
        x_t = paths.perturb(path, batch.x, t, noise)
        x0, eps = split(carry, batch, noise, x_t, t)
        share = jnp.minimum(1.0, carry["step"] / num_warmup_steps) if num_warmup_steps else 1.0
        frozen = network(jax.lax.stop_gradient(params), batch.cond)
        held, g = tangent(path, frozen, x_t, t, x0, eps, sigma_data=sigma_data, share=share)
        out = paths.network_output(path, parametrization, network(params, batch.cond), x_t, t)
        error = sum_event((out - held + _normalised(g, offset)) ** 2) / x_t[0].size
        w = log_weight(params["weight"], path, t)
        metrics = {"tangent": jnp.sqrt(sum_event(g**2)).mean()}
        return (jnp.exp(w) * error - w).mean(), ({**carry, "step": carry["step"] + 1}, metrics)

    sample, decode = renoised(function, path, shape, grid, num_steps)
    return Model(init=init, loss=loss, sample=sample, decode=decode)
