r"""Predictor and corrector: after every step of any stepper, Langevin dynamics at the new time.

    (1)  x_s by the predictor
    (2)  num_corrections times:  x_s += e score(x_s, s) + sqrt(2 e) z,  e = 2 (signal_to_noise sigma_s)^2

The source has e = 2 (signal_to_noise |z| / |score|)^2, with norms over the batch. (2) puts their expectations in their
place, for score = -eps / sigma, so that examples do not depend on each other. Nothing is corrected where sigma_s = 0.

Source: Score-Based Generative Modeling through Stochastic Differential Equations, https://arxiv.org/abs/2011.13456,
algorithms 1 to 5.
"""

import jax
import jax.numpy as jnp

from jaxgen import paths
from jaxgen.kernels.kernel import run
from jaxgen.kernels.langevin import LangevinState, langevin
from jaxgen.paths import Path, Time
from jaxgen.samplers.loop import Denoiser, State, Stepper
from jaxgen.types import Data, PRNGKey, Scalar

__all__ = ["predictor_corrector"]


def predictor_corrector(predictor: Stepper, *, signal_to_noise: Scalar = 0.16, num_corrections: int = 1) -> Stepper:
    """A stepper with Langevin dynamics after each of its steps.

    Args:
        predictor: any stepper.
        signal_to_noise: r, share of the noise that a correction takes away (may be traced).
        num_corrections: corrections after each step, each of one evaluation of the network.

    Returns:
        A `Stepper`, stochastic, with `num_corrections` more evaluations than the predictor.

    Raises:
        ValueError: if `num_corrections` is negative.

    Source: https://arxiv.org/abs/2011.13456, section 4.2.
    """
    if num_corrections < 0:
        raise ValueError(f"num_corrections must not be negative, got {num_corrections}")

    def correct(denoise: Denoiser, path: Path, key: PRNGKey, x_s: Data, t: Time, s: Time) -> Data:
        """(2); where no noise is left, x_s, beside a correction at t that is finite and dropped, as is its gradient."""
        noisy = path.sigma(s) > 0
        at = jnp.where(noisy, s, t)
        score = lambda x: paths.SCORE.from_x0(path, x, at, denoise(x, at))  # noqa: E731
        kernel = langevin(score, 2 * (signal_to_noise * path.sigma(at)) ** 2)
        corrected = run(kernel, key, LangevinState(x_s), num_corrections).position
        return jnp.where(noisy, corrected, x_s)

    def step(denoise: Denoiser, path: Path, key: PRNGKey, state: State, t: Time, s: Time) -> State:
        step_key, key = jax.random.split(key)
        predicted = predictor.step(denoise, path, step_key, state, t, s)
        return predicted._replace(x=correct(denoise, path, key, predicted.x, t, s))

    return Stepper(predictor.init, step, predictor.num_evaluations + num_corrections)
