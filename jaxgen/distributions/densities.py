"""Leaf densities as functions: elementwise log-probabilities in nats, and the sum over one example.

Every function broadcasts its arguments and returns one number for each element; `sum_event` adds up the elements of
each example.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgen.distributions.companding import level_cells
from jaxgen.distributions.picking import pick
from jaxgen.types import Data, PerExample

__all__ = [
    "bernoulli_log_prob",
    "categorical_log_prob",
    "logistic_log_prob",
    "normal_kl",
    "normal_log_prob",
    "sum_event",
]


def sum_event(values: Data) -> PerExample:
    """Sums `[n, ...]` over everything but the first axis."""
    return values.reshape(values.shape[0], -1).sum(-1)


def normal_log_prob(
    x: Float[Array, "*#shape"],
    mean: Float[Array, "*#shape"] | float = 0.0,
    log_scale: Num[Array, "*#shape"] | float = 0.0,
) -> Float[Array, "*shape"]:
    """Log-density of N(mean, exp(log_scale)^2): -(x - mean)^2 / (2 scale^2) - log_scale - ln(2 pi) / 2."""
    return -0.5 * ((x - mean) * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * jnp.log(2 * jnp.pi)


def normal_kl(mean: Float[Array, "*#shape"], log_scale: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
    """Divergence KL(N(mean, exp(log_scale)^2) || N(0, 1)): (mean^2 + scale^2 - 1) / 2 - log_scale."""
    return 0.5 * (mean**2 + jnp.exp(2 * log_scale) - 1) - log_scale


def bernoulli_log_prob(x: Num[Array, "*#shape"], logits: Float[Array, "*#shape"]) -> Float[Array, "*shape"]:
    """Log-probability of x in {0, 1} with P(1) = sigmoid(logits): x logits - ln(1 + exp(logits))."""
    return x * logits - jax.nn.softplus(logits)


def categorical_log_prob(x: Num[Array, "*shape"], logits: Float[Array, "*shape levels"]) -> Float[Array, "*shape"]:
    """Log-probability of x in {0, ..., levels - 1} with P(x) proportional to exp(logits[..., x]); NaN of other x."""
    largest = jax.lax.stop_gradient(logits.max(-1))
    total = jnp.log(jnp.exp(logits - largest[..., None]).sum(-1))
    return pick(logits, x.astype(jnp.int32)) - largest - total


def logistic_log_prob(
    x: Num[Array, "*#shape"],
    mean: Float[Array, "*#shape"],
    log_scale: Float[Array, "*#shape"],
    num_levels: int,
    companding: float = 0.0,
) -> Float[Array, "*shape"]:
    """Log-probability of levels 0 .. L - 1 whose cells are those of a logistic density on [-1, 1].

    With the cells of `level_cells`, from l to u, a = (u - mean) / s, b = (l - mean) / s and the sigmoid S, it is
    ln (S(a) - S(b)) = ln S(a) + ln S(-b) + ln (1 - exp(b - a)), where b = -inf for the first level and a = inf for the
    last: the form does not cancel far from the mean.

    Args:
        x: levels.
        mean: of the logistic density, on the scale of the mu-law.
        log_scale: ln s, on that scale.
        num_levels: L.
        companding: mu; 0 for the linear scale.
    """
    inverse_scale = jnp.exp(-log_scale)
    lower, upper, width = level_cells(jnp.asarray(x, jnp.result_type(mean)), num_levels, companding)
    above, below = (upper - mean) * inverse_scale, (lower - mean) * inverse_scale
    inside = jax.nn.log_sigmoid(above) + jax.nn.log_sigmoid(-below) + jnp.log(-jnp.expm1(-width * inverse_scale))
    first = jnp.where(x == 0, jax.nn.log_sigmoid(above), inside)
    return jnp.where(x == num_levels - 1, jax.nn.log_sigmoid(-below), first)
