r"""Variational diffusion: the noise schedule is learned with the denoiser, and the loss is the bound itself.

With gamma = -ln SNR, a learned increasing share f(t) from f(0) = 0 to f(1) = 1, learned ends, y(x) the data as reals,
and z_g = alpha y + sigma eps at gamma = g, where alpha^2 = sigmoid(-g), sigma^2 = sigmoid(g):

    (1)  gamma(t) = gamma_0 + r f(t),  gamma_1 = gamma_0 + r
    (2)  ln p(x) >= E ln p(x | z_gamma(0)) - KL(q(z_gamma(1) | x) || N(0, sigma^2 I)) - E_{t, eps} D
    (3)  D = 1/2 gamma'(t) |eps - eps(z_gamma(t), gamma(t))|^2,  t uniform in (0, 1]
    (4)  integers 0 .. L - 1 stand at y(x) = (2 x + 1) / L - 1, and p(x | z) is proportional to N(z / alpha; y(x),
         sigma^2 / alpha^2), token by token

E D is an integral over gamma: of f it depends on nothing but the variance. So the network and the ends descend the
gradient of (2), while f descends that of E D^2 (divided by the number of dimensions), for which each example's
derivative of D to the values of f and f' is multiplied by 2 D. The time of the inner `Path` is gamma.

Source: Variational Diffusion Models, https://arxiv.org/abs/2107.00630.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.distributions import categorical_log_prob, sum_event, tokens
from jaxgen.nets import pure
from jaxgen.nets.monotone import Monotone
from jaxgen.paths import Parametrization, Time
from jaxgen.samplers import generate
from jaxgen.samplers.ddpm import ddpm
from jaxgen.samplers.loop import Stepper
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey, Scalar

__all__ = ["Reconstruction", "levels", "reals", "vdm"]

_CLOCK = paths.of_log_snr(jnp.negative, t_min=-30.0, t_max=30.0)


class Reconstruction(NamedTuple):
    """How data stands among the reals.

    Attributes:
        to_reals: `x -> y`.
        log_prob: `(key, x, gamma_0) -> [n]`, unbiased for E ln p(x | z) at gamma_0.
        from_reals: `(key, z / alpha, gamma_0) -> x`, a draw.
    """

    to_reals: Callable[[Any], Any]
    log_prob: Callable[[Any, Any, Any], Any]
    from_reals: Callable[[Any, Any, Any], Any]


def reals() -> Reconstruction:
    """Data that is real: y = x, and p(x | z) = N(z / alpha, sigma^2 / alpha^2 I); samples keep the noise of gamma_0."""

    def log_prob(key: PRNGKey, x: Data, gamma: Scalar) -> PerExample:
        del key
        return -0.5 * (jnp.log(2 * jnp.pi) + gamma + 1) * sum_event(jnp.ones_like(x))

    return Reconstruction(lambda x: x, log_prob, lambda key, y, gamma: y)


def levels(num_levels: int) -> Reconstruction:
    """Integers 0 .. L - 1, by (4).

    Raises:
        ValueError: unless 2 <= L <= 256; when called, if the data is not of an integer type.
    """
    if not 2 <= num_levels <= 256:
        raise ValueError(f"num_levels must be at least 2 and at most 256, got {num_levels}")

    def to_reals(x: Data) -> Data:
        return (2 * tokens(x, "vdm of levels").astype(jnp.float32) + 1) / num_levels - 1

    def logits(y: Data, gamma: Scalar) -> Float[Array, "n ... levels"]:
        return -0.5 * jnp.exp(-gamma) * (y[..., None] - to_reals(jnp.arange(num_levels))) ** 2

    def log_prob(key: PRNGKey, x: Data, gamma: Scalar) -> PerExample:
        y = to_reals(x) + jnp.exp(0.5 * gamma) * jax.random.normal(key, x.shape)
        return sum_event(categorical_log_prob(x, logits(y, gamma)))

    def from_reals(key: PRNGKey, y: Data, gamma: Scalar) -> Data:
        return jax.random.categorical(key, logits(y, gamma)).astype(jnp.uint8)

    return Reconstruction(to_reals, log_prob, from_reals)


def vdm(
    net: nn.Module,
    shape: Sequence[int],
    *,
    reconstruction: Reconstruction | None = None,
    schedule: nn.Module | None = None,
    gamma_min: float = -13.3,
    gamma_max: float = 5.0,
    parametrization: Parametrization = paths.EPS,
    stepper: Stepper | None = None,
    num_steps: int = 50,
    num_bound_times: int = 8,
) -> Model:
    """Builds a variational diffusion model.

    Args:
        net: a module called as `net(x, level, cond)`, with `x` like the data as reals and `level [n]` gamma / 2; its
            output is like `x`. No dropout.
        shape: shape of one example.
        reconstruction: `reals()`, the default, or `levels(num_levels)` for integers.
        schedule: a module `t -> f(t)`, elementwise, rising from 0 to 1; `Monotone()` by default.
        gamma_min: gamma_0 at the start of training.
        gamma_max: gamma_1 at the start of training.
        parametrization: what the network predicts.
        stepper: how samples are drawn; `ddpm()` by default.
        num_steps: steps of the sampler, even in t.
        num_bound_times: evaluations of the network for each `elbo`.

    Returns:
        A `Model` of data `[n, *shape]` with `elbo` (2), in nats, and `score` of the data as reals at t in [0, 1]. The
        `loss` is the negative mean of (2) at one time for each example, with its three terms as metrics.

    Raises:
        ValueError: unless gamma_min < gamma_max; if `num_steps` or `num_bound_times` is below 1.

    Source: Variational Diffusion Models, https://arxiv.org/abs/2107.00630.
    """
    if not gamma_min < gamma_max:
        raise ValueError(f"expected gamma_min < gamma_max, got {gamma_min} and {gamma_max}")
    if min(num_steps, num_bound_times) < 1:
        raise ValueError(f"num_steps and num_bound_times must be at least 1, got {num_steps} and {num_bound_times}")
    shape, stepper = tuple(shape), ddpm() if stepper is None else stepper
    reconstruction = reals() if reconstruction is None else reconstruction
    schedule = Monotone() if schedule is None else schedule

    def denoiser(params: Params, cond: Cond) -> Callable[..., Any]:
        network = lambda x, level: pure.apply(net, params["net"], x, level, cond)  # noqa: E731
        return paths.denoiser(_CLOCK, parametrization, network)

    def share(params: Params, t: Time) -> Any:
        return pure.apply(schedule, params["schedule"], jnp.asarray(t, jnp.float32))

    def gamma(params: Params, t: Time) -> Any:
        return params["ends"]["first"] + _length(params) * share(params, t)

    def share_and_slope(params: Params, t: PerExample) -> tuple[PerExample, PerExample]:
        return jax.jvp(lambda t: share(params, t), (t,), (jnp.ones_like(t),))

    def error(params: Params, key: PRNGKey, f: PerExample, slope: PerExample, y: Data, cond: Cond) -> PerExample:
        """D of (3), at given values of f and f'."""
        level, noise = params["ends"]["first"] + _length(params) * f, jax.random.normal(key, y.shape)
        z = paths.perturb(_CLOCK, y, level, noise)
        found = paths.eps(_CLOCK, z, level, denoiser(params, cond)(z, level))
        return 0.5 * _length(params) * slope * sum_event((noise - found) ** 2)

    def ends(params: Params, key: PRNGKey, x: Data) -> tuple[PerExample, PerExample]:
        """The first two terms of (2)."""
        first = params["ends"]["first"]
        prior = 0.5 * jnp.exp(-first - _length(params)) * sum_event(reconstruction.to_reals(x) ** 2)
        return reconstruction.log_prob(key, x, first), prior

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        net_key, schedule_key = jax.random.split(key)
        return {
            "net": pure.init_on_one(net, net_key, batch, jnp.zeros((1, *shape)), jnp.zeros(1)),
            "schedule": pure.init(schedule, schedule_key, jnp.zeros(1)),
            "ends": {"first": jnp.float32(gamma_min), "length": jnp.float32(gamma_max - gamma_min)},
        }, ()

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        time_key, noise_key, end_key = jax.random.split(key, 3)
        y = reconstruction.to_reals(batch.x)
        t = 1 - paths.strata(time_key, y.shape[0])
        f, slope, squared = _to_be_squared(*share_and_slope(params, t))
        diffusion = _squared(error(params, noise_key, f, slope, y, batch.cond), squared / y[0].size)
        log_prob, prior = ends(params, end_key, batch.x)
        metrics = {"reconstruction": log_prob.mean(), "prior": prior.mean(), "diffusion": diffusion.mean()}
        return (diffusion + prior - log_prob).mean(), (carry, metrics)

    def elbo(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        time_key, noise_key, end_key = jax.random.split(key, 3)
        y = reconstruction.to_reals(x)
        part = lambda key, share: error(params, key, *share_and_slope(params, 1 - share), y, cond)  # noqa: E731
        parts = paths.stratified_mean(part, time_key, noise_key, x.shape[0], num_parts=num_bound_times)
        log_prob, prior = ends(params, end_key, x)
        return log_prob - prior - parts

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        key, last_key = jax.random.split(key)
        grid = gamma(params, jnp.linspace(1.0, 0.0, num_steps + 1))
        y = generate.generate(stepper, denoiser(params, cond), _CLOCK, key, (num, *shape), grid)
        return reconstruction.from_reals(last_key, y, params["ends"]["first"])

    def score(params: Params, x: Data, t: Time, cond: Cond = None) -> Data:
        level = gamma(params, t)
        return paths.SCORE.from_x0(_CLOCK, x, level, denoiser(params, cond)(x, level))

    return Model(init=init, loss=loss, sample=sample, elbo=elbo, score=score)


def _length(params: Params) -> Any:
    """The length r of (1)."""
    return jnp.abs(params["ends"]["length"])


@jax.custom_vjp
def _to_be_squared(f: PerExample, slope: PerExample) -> tuple[PerExample, PerExample, PerExample]:
    """Returns f and its slope, and a wire along which `_squared` sends back what their gradient is multiplied by."""
    return f, slope, jnp.zeros_like(f)


@jax.custom_vjp
def _squared(error: PerExample, wire: PerExample) -> PerExample:
    """The error D, unchanged; to whatever hangs on the wire the gradient will be that of D^2."""
    del wire
    return error


_to_be_squared.defvjp(
    lambda f, slope: (_to_be_squared(f, slope), None),
    lambda _, given: (given[0] * given[2], given[1] * given[2]),
)
_squared.defvjp(lambda error, wire: (error, error), lambda error, given: (given, 2 * error))
