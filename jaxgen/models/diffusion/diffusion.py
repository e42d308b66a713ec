r"""Diffusion: a network learns the denoiser of a noise path, and sampling walks the path back.

With the path x_t = alpha(t) x + sigma(t) eps of `paths`, its parametrisations and a network F:

    (1)  out = F(x_t / sqrt(alpha^2 + sigma^2), ln(sigma / alpha), cond),  x0(x_t, t) = to_x0(path, x_t, t, out)
    (2)  loss = E_{t, eps} w(t) mean |out - from_x0(path, x_t, t, x)|^2
    (3)  score = gradient of ln p_t(x_t) = -(x_t - alpha x0) / sigma^2
    (4)  sample: x_T ~ N(0, sigma(T)^2 I), then a stepper over a grid of times down to t_min, x = x_tmin / alpha(t_min)
    (5)  encode: x_tmin = alpha(t_min) x carried up to t_max by Heun's method; the latent is x_T / sigma(T), N(0, I)
    (6)  ln p(x) >= -KL(q(x_T|x) || N(0, sigma(T)^2 I)) + E ln N(x; x_tmin / alpha, sigma^2 / alpha^2 at t_min)
                    - 1/2 int |eps - eps(x_t, t)|^2 dlambda,  lambda = log_snr(t) from t_max to t_min

(6) bounds the density of the reverse process in continuous time. It holds for any network, and where the denoiser is
exact, it is an equality but for the ends of the path. The values of lambda of one example, and of a batch, cover the
range evenly.

Sources: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239; Score-Based Generative Modeling
through Stochastic Differential Equations, https://arxiv.org/abs/2011.13456; Variational Diffusion Models,
https://arxiv.org/abs/2107.00630 (6); Progressive Distillation, https://arxiv.org/abs/2202.00512 (v).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.distributions import sum_event
from jaxgen.nets import pure
from jaxgen.paths import Parametrization, Path, Time
from jaxgen.samplers.ddim import ddim
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import Stepper, integrate
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["diffusion", "independent_times", "simple_weight", "stratified_times"]

Denoise = Callable[..., Any]


def simple_weight(path: Path, t: Time) -> Any:
    """w(t) = 1 in (2)."""
    del path
    return jnp.ones_like(t)


def independent_times(path: Path, key: PRNGKey, num: int) -> Float[Array, " n"]:
    """Times drawn uniformly from [t_min, t_max]."""
    return jax.random.uniform(key, (num,), minval=path.t_min, maxval=path.t_max)


def _strata(key: PRNGKey, num: int) -> Float[Array, " n"]:
    """Numbers (u + i / n) mod 1 with one u: each is uniform, and together they cover [0, 1) evenly."""
    return (jax.random.uniform(key) + jnp.arange(num) / num) % 1


def stratified_times(path: Path, key: PRNGKey, num: int) -> Float[Array, " n"]:
    """Uniform times that cover [t_min, t_max] evenly over the batch: less noise in the loss.

    Source: Variational Diffusion Models, https://arxiv.org/abs/2107.00630, appendix I.
    """
    return path.t_min + (path.t_max - path.t_min) * _strata(key, num)


def _variational_bound(path: Path, denoise: Denoise, key: PRNGKey, x: Data, num_times: int) -> PerExample:
    """An unbiased estimate of (6), in nats, from one time in each of `num_times` equal parts of the range."""
    time_key, noise_key = jax.random.split(key)
    lowest, highest = paths.log_snr(path, path.t_max), paths.log_snr(path, path.t_min)
    share = _strata(time_key, x.shape[0])

    def error(part: tuple[Any, PRNGKey]) -> PerExample:
        index, key = part
        t = paths.time_of_log_snr(path, lowest + (highest - lowest) * (index + share) / num_times)
        noise = jax.random.normal(key, x.shape)
        x_t = paths.perturb(path, x, t, noise)
        return sum_event((noise - paths.eps(path, x_t, t, denoise(x_t, t))) ** 2)

    errors = jax.lax.map(error, (jnp.arange(num_times), jax.random.split(noise_key, num_times)))
    prior = 0.5 * jnp.exp(lowest) * sum_event(x**2)
    reconstruction = 0.5 * sum_event(jnp.ones_like(x)) * (highest - jnp.log(2 * jnp.pi) - 1)
    return reconstruction - prior - 0.5 * (highest - lowest) * errors.mean(0)


def diffusion(
    net: nn.Module,
    shape: Sequence[int],
    *,
    path: Path | None = None,
    parametrization: Parametrization = paths.V,
    weight: Callable[[Path, Any], Any] = simple_weight,
    times: Callable[[Path, Any, int], Any] = stratified_times,
    stepper: Stepper | None = None,
    grid: Callable[[Path, int], Any] = paths.uniform_grid,
    num_steps: int = 50,
    num_bound_times: int = 8,
) -> Model:
    """Builds a diffusion model of real data on the scale of 1.

    Args:
        net: a module called as `net(x, level, cond)`, with `x` like the data, scaled to the spread of the path (1), and
            `level [n]` = ln(sigma / alpha); its output is like `x`. No dropout.
        shape: shape of one example.
        path: the noise path; `paths.cosine()` by default.
        parametrization: what the network predicts: `paths.V`, `paths.EPS`, `paths.X0` or `paths.SCORE`.
        weight: `(path, t [n]) -> w [n]`, weight of the squared error of the network's output in (2).
        times: `(path, key, n) -> t [n]`, the times of the loss.
        stepper: how samples are drawn; `ddim()` by default.
        grid: `(path, num_steps) -> times` of samples, `encode` and `decode`.
        num_steps: steps of the sampler.
        num_bound_times: evaluations of the network for each `elbo`.

    Returns:
        A `Model` of data `[n, *shape]` with `score`, `elbo` (6), and `encode` and `decode` along the probability flow
        (deterministic, by Heun's method; the latent is like the data and N(0, I)). Sampling costs
        `num_steps * stepper.num_evaluations` evaluations of the network. `transforms.probability_flow` gives its
        likelihood.

    Raises:
        ValueError: if `num_steps` or `num_bound_times` is below 1.

    Source: Score-Based Generative Modeling through Stochastic Differential Equations,
    https://arxiv.org/abs/2011.13456.
    """
    if min(num_steps, num_bound_times) < 1:
        raise ValueError(f"num_steps and num_bound_times must be at least 1, got {num_steps} and {num_bound_times}")
    path = paths.cosine() if path is None else path
    stepper = ddim() if stepper is None else stepper
    shape = tuple(shape)

    def output(params: Params, x_t: Data, t: Time, cond: Cond) -> Data:
        alpha, sigma = paths.scales(path, t, x_t)
        level = jnp.broadcast_to(-0.5 * paths.log_snr(path, t), x_t.shape[:1])
        return pure.apply(net, params, x_t / jnp.sqrt(alpha**2 + sigma**2), level, cond)

    def denoiser(params: Params, cond: Cond) -> Denoise:
        return lambda x_t, t: parametrization.to_x0(path, x_t, t, output(params, x_t, t, cond))

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        x = jnp.zeros((1, *shape))
        cond = jax.tree.map(lambda leaf: leaf[:1], batch.cond)
        return pure.init(net, key, x, jnp.zeros(1), cond), ()

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        time_key, noise_key = jax.random.split(key)
        t = times(path, time_key, batch.x.shape[0])
        x_t = paths.perturb(path, batch.x, t, jax.random.normal(noise_key, batch.x.shape))
        target = parametrization.from_x0(path, x_t, t, batch.x)
        error = (output(params, x_t, t, batch.cond) - target) ** 2
        return (weight(path, t) * error.reshape(error.shape[0], -1).mean(-1)).mean(), (carry, {})

    def run(stepper: Stepper, params: Params, key: PRNGKey, x: Data, times: Array, cond: Cond) -> Data:
        return integrate(stepper, denoiser(params, cond), path, key, x, times)

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        start_key, step_key = jax.random.split(key)
        start = path.sigma(path.t_max) * jax.random.normal(start_key, (num, *shape))
        return run(stepper, params, step_key, start, grid(path, num_steps), cond) / path.alpha(path.t_min)

    def score(params: Params, x: Data, t: Time, cond: Cond = None) -> Data:
        return paths.SCORE.from_x0(path, x, t, denoiser(params, cond)(x, t))

    def elbo(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        return _variational_bound(path, denoiser(params, cond), key, x, num_bound_times)

    def encode(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Data:
        rising = grid(path, num_steps)[::-1]
        return run(heun(), params, key, path.alpha(path.t_min) * x, rising, cond) / path.sigma(path.t_max)

    def decode(params: Params, latent: Data, cond: Cond = None) -> Data:
        key, start = jax.random.key(0), path.sigma(path.t_max) * latent
        return run(heun(), params, key, start, grid(path, num_steps), cond) / path.alpha(path.t_min)

    return Model(init=init, loss=loss, sample=sample, elbo=elbo, score=score, encode=encode, decode=decode)
