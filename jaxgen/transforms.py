r"""Wrappers from model to model.

`pull_back` changes the coordinates of real data, z = T(x) with a bijection T that has no parameters:

    (1)  ln p(x) = ln p(z) + ln|det dz/dx|, and so for every bound and weight; energies get the opposite sign
    (2)  d ln p_t(x)/dx = (dz/dx)^T s_t(z) + d ln|det dz/dx| / dx

`dequantize` makes a model of reals y in [0, 1) a model of integers x in {0, ..., L - 1} in each of D dimensions:

    (3)  P(x) = integral of p(y) over the cell x <= L y < x + 1 = E_u[ p((x + u) / L) ] L^-D,  u ~ U[0, 1)^D
    (4)  ln w = ln p((x + u) / L) - D ln L,  E[w] = P(x),  E[ln w] <= ln P(x)

`probability_flow` makes a model with a score an ordinary differential equation with the same densities p_t:

    (5)  dx/dt = alpha' x0 + sigma' eps = f(x, t),  x0 and eps from the score
    (6)  ln p(x) = ln N(x_T; 0, sigma(T)^2 I) + integral of div f from t_min to t_max + D ln alpha(t_min),
         from x_tmin = alpha(t_min) x

Sources: A note on the evaluation of generative models, section 3.1, https://arxiv.org/abs/1511.01844; Score-Based
Generative Modeling through Stochastic Differential Equations, section 4.3, https://arxiv.org/abs/2011.13456.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen import paths
from jaxgen.bijections import Bijection, forward, inverse
from jaxgen.core import Model
from jaxgen.distributions import normal_log_prob, sum_event
from jaxgen.paths import Path
from jaxgen.samplers import ode
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["dequantize", "probability_flow", "pull_back"]

Field = Callable[..., Any] | None


def pull_back(model: Model, bijection: Bijection) -> Model:
    """A model of z becomes a model of x, where z = forward(x).

    Every likelihood field is that of x, by (1) and (2). The `loss` is the wrapped model's own on the batch of z, and
    its metrics are unchanged: since the bijection has no parameters, the log-determinant moves no gradient, and the
    losses of models without a likelihood have no place for it. A loss that is a negative log-likelihood is therefore
    that of z; ask `log_prob` or `elbo` for that of x. Parameters, latents and `carry` are the wrapped model's own.

    Args:
        model: a model of z.
        bijection: a bijection without parameters, which may depend on `cond`.

    Returns:
        A `Model` of x with the fields that `model` has.

    Raises:
        ValueError: from `init`, if the bijection has parameters.
    """

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        shapes = jax.eval_shape(bijection.init, key, batch.x, batch.cond)
        if jax.tree.leaves(shapes):
            raise ValueError(f"pull_back needs a bijection without parameters, got one with {shapes}")
        return model.init(key, Batch(forward(bijection, {}, batch.x, batch.cond), batch.cond))

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Any, tuple[Carry, Metrics]]:
        return model.loss(params, carry, key, Batch(forward(bijection, {}, batch.x, batch.cond), batch.cond))

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        return inverse(bijection, {}, model.sample(params, key, num, cond), cond)

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=_pull_back_exact(model.log_prob, bijection, 1),
        log_weight=_pull_back_noisy(model.log_weight, bijection),
        elbo=_pull_back_noisy(model.elbo, bijection),
        energy=_pull_back_exact(model.energy, bijection, -1),
        score=_pull_back_score(model.score, bijection),
        encode=_pull_back_encode(model.encode, bijection),
        decode=_pull_back_decode(model.decode, bijection),
        carry_spec=model.carry_spec,
    )


def _pull_back_exact(field: Field, bijection: Bijection, sign: int) -> Field:
    """`log_prob` (sign 1) or `energy` (sign -1) by (1)."""
    if field is None:
        return None

    def pulled(params: Params, x: Data, cond: Cond = None) -> PerExample:
        z, log_det = bijection.forward_and_log_det({}, x, cond)
        return field(params, z, cond) + sign * log_det

    return pulled


def _pull_back_noisy(field: Field, bijection: Bijection) -> Field:
    """`log_weight` or `elbo` by (1)."""
    if field is None:
        return None

    def pulled(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        z, log_det = bijection.forward_and_log_det({}, x, cond)
        return field(params, key, z, cond) + log_det

    return pulled


def _pull_back_score(field: Field, bijection: Bijection) -> Field:
    """`score` by (2)."""
    if field is None:
        return None

    def pulled(params: Params, x: Data, t: Any, cond: Cond = None) -> Data:
        (z, log_det), vjp = jax.vjp(lambda x: bijection.forward_and_log_det({}, x, cond), x)
        return vjp((field(params, z, t, cond), jnp.ones_like(log_det)))[0]

    return pulled


def _pull_back_encode(field: Field, bijection: Bijection) -> Field:
    if field is None:
        return None

    def pulled(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Any:
        return field(params, key, forward(bijection, {}, x, cond), cond)

    return pulled


def _pull_back_decode(field: Field, bijection: Bijection) -> Field:
    if field is None:
        return None

    def pulled(params: Params, latent: Any, cond: Cond = None) -> Data:
        return inverse(bijection, {}, field(params, latent, cond), cond)

    return pulled


def dequantize(model: Model, num_levels: int) -> Model:
    """A model of reals in [0, 1) becomes a model of integers, by uniform noise.

    Its `log_weight` and `elbo` are (4), from the wrapped model's `log_prob`, or else from its `log_weight` and `elbo`;
    `log_prob`, `energy` and `score` are `None`: the sum over the cell has no closed form, and integers no gradient.
    Samples and decoded data are floor(L y), clipped to the levels, `uint8`. The `loss` is the wrapped model's own at
    y = (x + u) / L with fresh noise, without the constant D ln L, and its metrics are unchanged. `init` and `encode`
    are handed data with noise, too.

    Args:
        model: a model of reals in [0, 1).
        num_levels: L, the number of levels, 2 <= L <= 256.

    Returns:
        A `Model` of integers 0, ..., L - 1.

    Raises:
        ValueError: if L is out of range; when called, if the data is not of an integer type.

    Source: A note on the evaluation of generative models, section 3.1, https://arxiv.org/abs/1511.01844.
    """
    if not 2 <= num_levels <= 256:
        raise ValueError(f"num_levels must be at least 2 and at most 256, got {num_levels}")

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        noise_key, key = jax.random.split(key)
        return model.init(key, Batch(_to_reals(noise_key, batch.x, num_levels), batch.cond))

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Any, tuple[Carry, Metrics]]:
        noise_key, key = jax.random.split(key)
        return model.loss(params, carry, key, Batch(_to_reals(noise_key, batch.x, num_levels), batch.cond))

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        return _to_levels(model.sample(params, key, num, cond), num_levels)

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_weight=_dequantized(model.log_prob, model.log_weight, num_levels),
        elbo=_dequantized(model.log_prob, model.elbo, num_levels),
        encode=_dequantized_encode(model.encode, num_levels),
        decode=_dequantized_decode(model.decode, num_levels),
        carry_spec=model.carry_spec,
    )


def _to_reals(key: PRNGKey, x: Data, num_levels: int) -> Data:
    """Noisy y = (x + u) / L; u lies on a grid of 2^14 midpoints, so that y is inside its cell in spite of rounding."""
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"dequantize expects integers 0, ..., {num_levels - 1}, got data of type {x.dtype}")
    noise = (jax.random.randint(key, x.shape, 0, 2**14) + 0.5) / 2**14
    return (x + noise) / num_levels


def _to_levels(y: Data, num_levels: int) -> Data:
    return jnp.clip(jnp.floor(num_levels * y), 0, num_levels - 1).astype(jnp.uint8)


def _dequantized(exact: Field, noisy: Field, num_levels: int) -> Field:
    """The weight (4), from the exact ln p(y) if there is one, or else from a weight or a bound of it."""
    if exact is not None:
        return _dequantized(None, lambda params, key, y, cond: exact(params, y, cond), num_levels)
    if noisy is None:
        return None

    def field(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        noise_key, key = jax.random.split(key)
        log_density = noisy(params, key, _to_reals(noise_key, x, num_levels), cond)
        return log_density - math.prod(x.shape[1:]) * math.log(num_levels)

    return field


def _dequantized_encode(field: Field, num_levels: int) -> Field:
    if field is None:
        return None

    def encode(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Any:
        noise_key, key = jax.random.split(key)
        return field(params, key, _to_reals(noise_key, x, num_levels), cond)

    return encode


def _dequantized_decode(field: Field, num_levels: int) -> Field:
    if field is None:
        return None

    def decode(params: Params, latent: Any, cond: Cond = None) -> Data:
        return _to_levels(field(params, latent, cond), num_levels)

    return decode


def probability_flow(
    model: Model,
    path: Path,
    *,
    num_steps: int = 100,
    num_probes: int = 0,
    grid: Callable[[Path, int], Any] = paths.log_snr_grid,
) -> Model:
    """A model with a score becomes the flow (5), with likelihoods (6), by the Runge-Kutta method on a fixed grid.

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

    Returns:
        A `Model` of the same data, with the `init`, `loss` and `score` of the wrapped one.

    Raises:
        ValueError: if the model has no score, or a number is out of range.

    Source: https://arxiv.org/abs/2011.13456, section 4.3.
    """
    if model.score is None:
        raise ValueError("probability_flow needs a model with a score, and it is None")
    if num_steps < 1 or num_probes < 0:
        raise ValueError(f"expected num_steps >= 1 and num_probes >= 0, got {num_steps} and {num_probes}")
    score = model.score

    def flow(params: Params, cond: Cond) -> Callable[..., Any]:
        def velocity(x: Data, t: Any) -> Data:
            return paths.velocity(path, x, t, paths.SCORE.to_x0(path, x, t, score(params, x, t, cond)))

        return velocity

    def encode(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Data:
        del key
        x_min = path.alpha(path.t_min) * x
        return ode.solve(flow(params, cond), x_min, grid(path, num_steps)[::-1]) / path.sigma(path.t_max)

    def decode(params: Params, latent: Data, cond: Cond = None) -> Data:
        x_max = path.sigma(path.t_max) * latent
        return ode.solve(flow(params, cond), x_max, grid(path, num_steps)) / path.alpha(path.t_min)

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        like = jax.eval_shape(lambda: model.sample(params, key, num, cond))
        return decode(params, jax.random.normal(key, like.shape), cond)

    def log_density(params: Params, x: Data, cond: Cond, divergence: Callable[..., Any]) -> PerExample:
        x_min, rising = path.alpha(path.t_min) * x, grid(path, num_steps)[::-1]
        x_max, change = ode.solve_with_divergence(flow(params, cond), x_min, rising, divergence)
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
