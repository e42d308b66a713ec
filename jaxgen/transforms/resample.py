r"""Another sampler: a model with a score is sampled by any stepper over any grid.

(1)  denoise(x_t, t) = x0 of score(x_t, t),  by x0 = (x_t + sigma^2 score) / alpha
(2)  sample, encode and decode: `samplers.generate.along` with (1)
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.paths import Path
from jaxgen.samplers import generate
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import Denoiser, Stepper
from jaxgen.types import Cond, Data, Params, PRNGKey

__all__ = ["resample"]


def resample(
    model: Model,
    path: Path,
    *,
    stepper: Stepper | None = None,
    encoder: Stepper | None = None,
    grid: Callable[[Path, int], Any] = paths.uniform_grid,
    num_steps: int = 50,
) -> Model:
    """A model with a score gets the samples, the `encode` and the `decode` of a stepper over a grid.

    Likelihoods stay those of the wrapped model: they belong to its score, not to a number of steps.

    Args:
        model: a model of reals with a `score`.
        path: the noise path of that score.
        stepper: how samples are drawn; `heun()` by default.
        encoder: a deterministic stepper for `encode` and `decode`; `heun()` by default.
        grid: `(path, num_steps) -> times [num_steps + 1]`, falling.
        num_steps: steps of the sampler.

    Returns:
        The model with `sample`, `encode` and `decode` replaced; latents are like the data and N(0, I). Sampling costs
        `num_steps * stepper.num_evaluations` evaluations of the score.

    Raises:
        ValueError: if the model has no score, `num_steps` is below 1, or the grid does not fall.
    """
    if model.score is None:
        raise ValueError("resample needs a model with a score, and it is None")
    generate.check_grid(grid, path, num_steps)
    score, steppers = model.score, {"stepper": stepper or heun(), "encoder": encoder or heun()}

    def denoiser(params: Params, cond: Cond) -> Denoiser:
        return lambda x_t, t: paths.SCORE.to_x0(path, x_t, t, score(params, x_t, t, cond))

    ends = generate.along(denoiser, path, grid, num_steps, **steppers)

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        like = jax.eval_shape(lambda: model.sample(params, key, num, cond))
        return ends.sample(params, key, like.shape, cond)

    return model._replace(sample=sample, encode=ends.encode, decode=ends.decode)
