r"""Diffusion: a network learns the denoiser of a noise path, and sampling walks the path back.

With the path x_t = alpha(t) x + sigma(t) eps of `paths`, its parametrisations and a network F:

    (1)  out = F(c_in x_t, c_noise, cond),  x0(x_t, t) = to_x0(path, x_t, t, out)
    (2)  loss = E_{t, eps} w(t) mean |out - from_x0(path, x_t, t, x)|^2
    (3)  score = gradient of ln p_t(x_t) = -(x_t - alpha x0) / sigma^2
    (4)  sample: x_T ~ N(0, sigma(T)^2 I), then a stepper over a grid of times down to t_min, x = x_tmin / alpha(t_min)
    (5)  encode: x_tmin = alpha(t_min) x carried up to t_max by Heun's method; the latent is x_T / sigma(T), N(0, I)
    (6)  ln p(x) >= -KL(q(x_T|x) || N(0, sigma(T)^2 I)) + E ln N(x; x_tmin / alpha, sigma^2 / alpha^2 at t_min)
                    - 1/2 int |eps - eps(x_t, t)|^2 dlambda,  lambda = log_snr(t) from t_max to t_min

(6) is `paths.variational_bound`. In (2) x and eps are paired by a coupling, at first independently. Flow matching is
`path=paths.linear(), parametrization=paths.VELOCITY`, with the weight 1; rectified flow couples by `reflow_coupling`.

Sources: Denoising Diffusion Probabilistic Models, https://arxiv.org/abs/2006.11239; Score-Based Generative Modeling
through Stochastic Differential Equations, https://arxiv.org/abs/2011.13456; Variational Diffusion Models,
https://arxiv.org/abs/2107.00630 (6); Progressive Distillation, https://arxiv.org/abs/2202.00512 (v).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.nets import pure
from jaxgen.paths import Coupling, Parametrization, Path, Time
from jaxgen.samplers import generate
from jaxgen.samplers.ddim import ddim
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import Stepper
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["diffusion"]

Denoise = Callable[..., Any]


def diffusion(
    net: nn.Module,
    shape: Sequence[int],
    *,
    path: Path | None = None,
    parametrization: Parametrization = paths.V,
    weight: Callable[[Path, Parametrization, Any], Any] = paths.simple_weight,
    times: Callable[[Path, Any, int], Any] = paths.stratified_times,
    coupling: Coupling | None = None,
    stepper: Stepper | None = None,
    encoder: Stepper | None = None,
    grid: Callable[[Path, int], Any] = paths.uniform_grid,
    num_steps: int = 50,
    num_bound_times: int = 8,
) -> Model:
    """Builds a diffusion model of real data on the scale of 1.

    Args:
        net: a module called as `net(x, level, cond)`, with `x` like the data, of variance near 1, and `level [n]` the
            noise level, both as the parametrisation has them (1); its output is like `x`. No dropout.
        shape: shape of one example.
        path: the noise path; `paths.cosine()` by default.
        parametrization: what the network predicts: `paths.V`, `paths.EPS`, `paths.X0`, `paths.SCORE`,
            `paths.VELOCITY` or `paths.preconditioned()`.
        weight: `(path, parametrization, t [n]) -> w [n]`, weight of the squared error of the network's output in (2).
        times: `(path, key, n) -> t [n]`, the times of the loss.
        coupling: how x and eps are paired in (2); `paths.independent_coupling()` by default. What the score and the
            bound (6) then mean holds for couplings that are independent.
        stepper: how samples are drawn; `ddim()` by default.
        encoder: a deterministic stepper for `encode` and `decode`; `heun()` by default.
        grid: `(path, num_steps) -> times` of samples, `encode` and `decode`.
        num_steps: steps of the sampler.
        num_bound_times: evaluations of the network for each `elbo`.

    Returns:
        A `Model` of data `[n, *shape]` with `score`, `elbo` (6), and `encode` and `decode` along the probability flow
        (deterministic; the latent is like the data and N(0, I)). Sampling costs
        `num_steps * stepper.num_evaluations` evaluations of the network. `transforms.probability_flow` gives its
        likelihood.

    Raises:
        ValueError: if `num_steps` or `num_bound_times` is below 1, or the grid does not fall.

    Source: Score-Based Generative Modeling through Stochastic Differential Equations,
    https://arxiv.org/abs/2011.13456.
    """
    if num_bound_times < 1:
        raise ValueError(f"num_bound_times must be at least 1, got {num_bound_times}")
    path = paths.cosine() if path is None else path
    generate.check_grid(grid, path, num_steps)
    coupling = paths.independent_coupling() if coupling is None else coupling
    steppers = {"stepper": stepper or ddim(), "encoder": encoder or heun()}
    shape = tuple(shape)

    def network(params: Params, cond: Cond) -> Callable[[Any, Any], Any]:
        return lambda x, level: pure.apply(net, params, x, level, cond)

    def denoiser(params: Params, cond: Cond) -> Denoise:
        return paths.denoiser(path, parametrization, network(params, cond))

    ends = generate.along(denoiser, path, grid, num_steps, **steppers)

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        return pure.init_on_one(net, key, batch, jnp.zeros((1, *shape)), jnp.zeros(1)), coupling.init(key, batch)

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        time_key, noise_key = jax.random.split(key)
        t = times(path, time_key, batch.x.shape[0])
        x, noise = coupling.pair(carry, noise_key, batch)
        x_t = paths.perturb(path, x, t, noise)
        target = parametrization.from_x0(path, x_t, t, x)
        out = paths.network_output(path, parametrization, network(params, batch.cond), x_t, t)
        error = ((out - target) ** 2).reshape(t.shape[0], -1).mean(-1)
        return (weight(path, parametrization, t) * error).mean(), (carry, {})

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        return ends.sample(params, key, (num, *shape), cond)

    def score(params: Params, x: Data, t: Time, cond: Cond = None) -> Data:
        return paths.SCORE.from_x0(path, x, t, denoiser(params, cond)(x, t))

    def elbo(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        return paths.variational_bound(path, denoiser(params, cond), key, x, num_times=num_bound_times)

    return Model(init=init, loss=loss, sample=sample, elbo=elbo, score=score, encode=ends.encode, decode=ends.decode)
