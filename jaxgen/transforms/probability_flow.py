r"""The probability flow: an ordinary differential equation with the densities p_t of a model with a score.

    (1)  dx/dt = alpha' x0 + sigma' eps = f(x, t),  x0 and eps from the score
    (2)  ln p(x) = ln N(x_T; 0, sigma(T)^2 I) + integral of div f from t_min to t_max + D ln alpha(t_min),
         from x_tmin = alpha(t_min) x

Source: Score-Based Generative Modeling through Stochastic Differential Equations, section 4.3,
https://arxiv.org/abs/2011.13456.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.distributions import normal_log_prob, sum_event
from jaxgen.paths import Path
from jaxgen.samplers import generate, ode
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["probability_flow"]


def probability_flow(
    model: Model,
    path: Path,
    *,
    num_steps: int = 100,
    num_probes: int = 0,
    grid: Callable[[Path, int], Any] = paths.log_snr_grid,
    solver: Callable[..., Any] = ode.solve,
) -> Model:
    """A model with a score becomes the flow (1), with likelihoods (2), by the Runge-Kutta method on a fixed grid.

    Another `solver` may choose its own steps: `adaptive.dormand_prince(rtol=1e-5)` reads only the ends of the grid. Its
    samples take 2 + 6 evaluations for each step that was tried, as many as the hardest of the batch needs.

    Exact divergences give `log_prob`. Hutchinson's estimate gives `elbo`, with fresh signs for every example, whose
    mean is ln p(x). Either is the density of what `sample` draws here, which is deterministic from x_T on; likelihoods
    of the wrapped model belong to another process and are dropped. Latents are N(0, I).

    Args:
        model: a model of reals with a `score`.
        path: the noise path of that score.
        num_steps: Runge-Kutta steps, of 4 evaluations of the score each.
        num_probes: directions of Hutchinson's estimate; 0 for the exact divergence, which takes as many forward
            derivatives as x has dimensions.
        grid: `(path, num_steps) -> times`, from t_max down to t_min.
        solver: `(field, y, grid) -> y`, which carries y from the first time of the grid to the last.

    Returns:
        A `Model` of the same data, with the `init`, `loss` and `score` of the wrapped one.

    Raises:
        ValueError: if the model has no score, a number is out of range, or the grid does not fall.

    Source: https://arxiv.org/abs/2011.13456, section 4.3.
    """
    if model.score is None:
        raise ValueError("probability_flow needs a model with a score, and it is None")
    if num_steps < 1 or num_probes < 0:
        raise ValueError(f"expected num_steps >= 1 and num_probes >= 0, got {num_steps} and {num_probes}")
    generate.check_grid(grid, path, num_steps)
    score = model.score

    def flow(params: Params, cond: Cond) -> Callable[..., Any]:
        def velocity(x: Data, t: Any) -> Data:
            return paths.velocity(path, x, t, paths.SCORE.to_x0(path, x, t, score(params, x, t, cond)))

        return velocity

    def encode(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Data:
        del key
        x_min = path.alpha(path.t_min) * x
        return solver(flow(params, cond), x_min, grid(path, num_steps)[::-1]) / path.sigma(path.t_max)

    def decode(params: Params, latent: Data, cond: Cond = None) -> Data:
        x_max = path.sigma(path.t_max) * latent
        return solver(flow(params, cond), x_max, grid(path, num_steps)) / path.alpha(path.t_min)

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        like = jax.eval_shape(lambda: model.sample(params, key, num, cond))
        return decode(params, jax.random.normal(key, like.shape), cond)

    def log_density(params: Params, x: Data, cond: Cond, divergence: Callable[..., Any]) -> PerExample:
        x_min, rising = path.alpha(path.t_min) * x, grid(path, num_steps)[::-1]
        x_max, change = ode.solve_with_divergence(flow(params, cond), x_min, rising, divergence, solver)
        prior = normal_log_prob(x_max, 0.0, jnp.log(path.sigma(path.t_max)))
        return sum_event(prior + jnp.log(path.alpha(path.t_min))) + change

    def log_prob(params: Params, x: Data, cond: Cond = None) -> PerExample:
        return log_density(params, x, cond, ode.exact_divergence)

    def elbo(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        probes = jax.random.rademacher(key, (num_probes, *x.shape), x.dtype)
        return log_density(params, x, cond, lambda field, x: ode.hutchinson_divergence(field, x, probes))

    return Model(
        init=model.init,
        loss=model.loss,
        sample=sample,
        log_prob=None if num_probes else log_prob,
        elbo=elbo if num_probes else None,
        score=model.score,
        encode=encode,
        decode=decode,
        carry_spec=model.carry_spec,
    )
