r"""Churn: a little fresh noise before every step, so that errors of the steps before it are forgotten.

    (1)  gamma = min(churn, sqrt(2) - 1) where churn_min <= sigma_t / alpha_t <= churn_max, else 0
    (2)  t' >= t is the time with sigma' / alpha' = (1 + gamma) sigma_t / alpha_t, not beyond t_max
    (3)  x' ~ q(x' | x_t), its noise multiplied by `noise`
    (4)  x_s from x' by a stepper without memory over t' -> s

Source: Elucidating the Design Space of Diffusion-Based Generative Models, https://arxiv.org/abs/2206.00364,
algorithm 2, there with alpha = 1, sigma = t and Heun's method.
"""

import jax
import jax.numpy as jnp

from jaxgen import paths
from jaxgen.paths import Path, Time
from jaxgen.samplers.loop import Denoiser, State, Stepper
from jaxgen.samplers.moves import diffuse
from jaxgen.types import PRNGKey, Scalar

__all__ = ["churned"]


def churned(
    stepper: Stepper, *, churn: Scalar, churn_min: Scalar = 0.0, churn_max: Scalar = float("inf"), noise: Scalar = 1.0
) -> Stepper:
    """A stepper with fresh noise before each of its steps; it costs no evaluation of the network.

    Args:
        stepper: a stepper without memory, whose intervals grow by the way back. Memory counts on intervals that follow
            each other: with it the way back would be missing from the times between one x0 and the next.
        churn: share by which sigma / alpha grows, at most sqrt(2) - 1: the source's S_churn / num_steps (may be traced,
            as all that follow).
        churn_min: the least sigma / alpha at which noise is added.
        churn_max: the greatest.
        noise: scale of the noise; a little over 1 makes up for denoisers that remove too much.

    Returns:
        A `Stepper`.

    Source: https://arxiv.org/abs/2206.00364, algorithm 2.
    """

    def later(path: Path, t: Time) -> Time:
        """(1) and (2)."""
        log_ratio = -0.5 * paths.log_snr(path, t)
        inside = (log_ratio >= jnp.log(churn_min)) & (log_ratio <= jnp.log(churn_max))
        gamma = jnp.where(inside, jnp.minimum(churn, jnp.sqrt(2.0) - 1), 0.0)
        return jnp.where(gamma > 0, paths.time_of_log_snr(path, -2 * (log_ratio + jnp.log1p(gamma))), t)

    def step(denoise: Denoiser, path: Path, key: PRNGKey, state: State, t: Time, s: Time) -> State:
        churn_key, step_key = jax.random.split(key)
        up = later(path, t)
        x = diffuse(path, churn_key, state.x, t, up, noise=noise)
        return stepper.step(denoise, path, step_key, State(x, state.memory), up, s)

    return Stepper(stepper.init, step, stepper.num_evaluations)
