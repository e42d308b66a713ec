r"""Consistency models: a network learns where the flow through any noisy point ends.

With the path x_t = alpha x + sigma eps, a parametrisation that keeps the end of the path, and a network F:

    (1)  f(x_t, t) = to_x0(path, x_t, t, F(c_in x_t, c_noise, cond)),  f(x, t_min) = x / alpha(t_min)
    (2)  loss = E w(t, s) d(f(x_t, t), stop_gradient(f^-(x_s, s))),  t > s on one trajectory
    (3)  training:      x_s = alpha_s x + sigma_s eps, the same x and eps as in x_t
         distillation:  x_s by one step of a stepper from x_t, with a teacher's denoiser
    (4)  f^- has the parameters of f, or their moving average

The condition at t_min, carried up the path by (2), makes f the end of the flow. In (3) training follows the flow of
the data in the mean, as the times come together: which times are compared is a function of the step (`paths.pairs`).

    the paper's training      uniform_pairs(...), squared_distance, target_decay > 0
    improved training         log_normal_pairs(doubling(...)), pseudo_huber_distance(), inverse_gap_weight
    easy consistency tuning   tuning_pairs(...), inverse_gap_weight, from a diffusion model's parameters

Sampling takes one step, or noise is added again between several: `samplers.renoise`.

Sources: Consistency Models, https://arxiv.org/abs/2303.01469; Improved Techniques for Training Consistency Models,
https://arxiv.org/abs/2310.14189; Consistency Models Made Easy, https://arxiv.org/abs/2406.14548.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.distributions import sum_event
from jaxgen.nets import pure
from jaxgen.paths import Pairs, Parametrization, Path
from jaxgen.samplers import generate
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import Stepper
from jaxgen.samplers.renoise import renoised, single_step
from jaxgen.teaching import averaged, teacher_denoiser
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["consistency", "consistency_function", "pseudo_huber_distance", "squared_distance"]


def squared_distance(a: Data, b: Data) -> PerExample:
    """The mean over dimensions of (a - b)^2."""
    return sum_event((a - b) ** 2) / a[0].size


def pseudo_huber_distance(*, scale: float | None = None) -> Callable[[Any, Any], Any]:
    """sqrt(|a - b|^2 + c^2) - c, which is quadratic near 0 and linear far off.

    Args:
        scale: c > 0; 0.00054 sqrt(D) for data of D dimensions when `None`.

    Returns:
        `(a, b) -> [n]`.

    Raises:
        ValueError: unless `scale` is positive.

    Source: https://arxiv.org/abs/2310.14189, section 3.3.
    """
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")

    def distance(a: Data, b: Data) -> PerExample:
        c = 0.00054 * a[0].size ** 0.5 if scale is None else scale
        return jnp.sqrt(sum_event((a - b) ** 2) + c**2) - c

    return distance


def consistency_function(net: nn.Module, path: Path, parametrization: Parametrization) -> Callable[..., Any]:
    """The function (1): `(params, cond) -> ((x_t, t) -> x)`, a denoiser's place in `samplers.renoise`."""

    def bind(params: Params, cond: Cond = None) -> Callable[[Any, Any], Any]:
        return paths.denoiser(path, parametrization, lambda x, level: pure.apply(net, params, x, level, cond))

    return bind


def _check_end(path: Path, parametrization: Parametrization) -> None:
    """The output of the network must hardly matter at t_min."""
    with jax.ensure_compile_time_eval():
        ends = [parametrization.to_x0(path, jnp.ones((1, 1)), path.t_min, jnp.full((1, 1), out)) for out in (-1.0, 1.0)]
        change = float(abs(ends[1] - ends[0])[0, 0])
    if change > 0.1:
        raise ValueError(
            "expected a parametrisation that keeps the end of the path, such as preconditioned(keep_t_min=True); with "
            f"this one outputs -1 and 1 of the network differ by {change:.3g} in x at t_min"
        )


def consistency(
    net: nn.Module,
    shape: Sequence[int],
    *,
    path: Path | None = None,
    parametrization: Parametrization | None = None,
    pairs: Pairs | None = None,
    distance: Callable[[Any, Any], Any] | None = None,
    weight: Callable[[Path, Any, Any], Any] = paths.inverse_gap_weight,
    teacher: Model | None = None,
    teacher_stepper: Stepper | None = None,
    target_decay: float = 0.0,
    grid: Callable[[Path, int], Any] = paths.karras_grid,
    num_steps: int = 1,
) -> Model:
    """Builds a consistency model of real data on the scale of 1: by distillation with a teacher, else by training.

    Args:
        net: a module called as `net(x, level, cond)`, as in `diffusion`, so that a diffusion model's parameters with
            the same path and parametrisation can be started from (`teaching.starting_from`).
        shape: shape of one example.
        path: the noise path; `paths.karras()` by default.
        parametrization: one that keeps the end of the path; `preconditioned(keep_t_min=True)` by default. `V` and
            `EPS` keep it up to sigma(t_min).
        pairs: `(path, key, n, step) -> (t [n], s [n])`; `log_normal_pairs(40)` by default.
        distance: d of (2), `(a, b) -> [n]`; `pseudo_huber_distance()` by default.
        weight: w of (2), `(path, t [n], s [n]) -> [n]`.
        teacher: a model with a `score` on the same path, whose parameters lie in `carry["teacher"]`
            (`teaching.with_teacher` puts them there).
        teacher_stepper: a deterministic stepper for (3); `heun()` by default.
        target_decay: decay of the moving average (4), in [0, 1); 0 for none.
        grid: `(path, num_steps) -> times` of samples.
        num_steps: evaluations of the network for each sample.

    Returns:
        A `Model` of data `[n, *shape]` with `sample`, and `decode`, by one step from latents N(0, I). It has no score:
        f is not the mean of the data given x_t. Its carry holds `step`, the number of losses so far, and with a teacher
        or a moving average `teacher` and `target`.

    Raises:
        ValueError: if the parametrisation does not keep the end of the path, the teacher has no score, the grid does
            not fall, or a number is out of range.

    Source: Consistency Models, https://arxiv.org/abs/2303.01469.
    """
    if num_steps < 1 or not 0 <= target_decay < 1:
        raise ValueError(f"expected num_steps >= 1 and target_decay in [0, 1), got {num_steps} and {target_decay}")
    path = paths.karras() if path is None else path
    generate.check_grid(grid, path, num_steps)
    denoise = None if teacher is None else teacher_denoiser(teacher, path)
    parametrization = paths.preconditioned(keep_t_min=True) if parametrization is None else parametrization
    _check_end(path, parametrization)
    pairs = paths.log_normal_pairs(40) if pairs is None else pairs
    distance = pseudo_huber_distance() if distance is None else distance
    teacher_stepper = heun() if teacher_stepper is None else teacher_stepper
    function, shape = consistency_function(net, path, parametrization), tuple(shape)

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        params = pure.init_on_one(net, key, batch, jnp.zeros((1, *shape)), jnp.zeros(1))
        carry = {"step": jnp.zeros((), jnp.int32)}
        if teacher is not None:
            carry["teacher"] = teacher.init(key, batch)[0]
        if target_decay:
            carry["target"] = params
        return params, carry

    def earlier(carry: Carry, batch: Batch, noise: Data, x_t: Data, t: Any, s: Any) -> Data:
        """(3)."""
        if denoise is None:
            return paths.perturb(path, batch.x, s, noise)
        return single_step(teacher_stepper, partial(denoise, carry["teacher"]), path, x_t, t, s, batch.cond)

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        pair_key, noise_key = jax.random.split(key)
        t, s = pairs(path, pair_key, batch.x.shape[0], carry["step"])
        target_params, carry = averaged(params, {**carry, "step": carry["step"] + 1}, target_decay)
        noise = jax.random.normal(noise_key, batch.x.shape)
        x_t = paths.perturb(path, batch.x, t, noise)
        x_s = earlier(carry, batch, noise, x_t, t, s)
        target = jax.lax.stop_gradient(function(target_params, batch.cond)(x_s, s))
        error = distance(function(params, batch.cond)(x_t, t), target)
        return (weight(path, t, s) * error).mean(), (carry, {"distance": error.mean()})

    sample, decode = renoised(function, path, shape, grid, num_steps)
    return Model(init=init, loss=loss, sample=sample, decode=decode)
