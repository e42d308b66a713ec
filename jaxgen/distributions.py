"""Leaf densities as functions: elementwise log-probabilities in nats, and the sum over one example.

Every function broadcasts its arguments and returns one number for each element; `sum_event` adds up the elements of
each example. A `Likelihood` binds a density to the output of a decoder.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgen.types import Data, Params, PerExample, PRNGKey

__all__ = [
    "Likelihood",
    "bernoulli_likelihood",
    "bernoulli_log_prob",
    "categorical_log_prob",
    "normal_kl",
    "normal_likelihood",
    "normal_log_prob",
    "sum_event",
    "tokens",
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
    """Log-probability of x in {0, ..., levels - 1} with P(x) proportional to exp(logits[..., x])."""
    normalised = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(normalised, x[..., None].astype(jnp.int32), axis=-1)[..., 0]


def tokens(x: Data, what: str) -> Data:
    """Data of integers as `int32`; `what` expects them.

    Raises:
        ValueError: if the data is not of an integer type.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{what} expects integers, got data of type {x.dtype}")
    return x.astype(jnp.int32)


class Likelihood(NamedTuple):
    """Density of data given the output of a decoder.

    Attributes:
        init: `() -> params`, parameters beyond the decoder's own (a noise scale).
        log_prob: `(params, x, output) -> [n]`, in nats.
        sample: `(params, key, output) -> x`.
        mean: `(params, output) -> x`, the mean of the data.
    """

    init: Callable[..., Any]
    log_prob: Callable[..., Any]
    sample: Callable[..., Any]
    mean: Callable[..., Any]


def bernoulli_likelihood() -> Likelihood:
    """Independent bits x in {0, 1}; the decoder's output are logits. Samples are `uint8`."""

    def sample(params: Params, key: PRNGKey, output: Data) -> Data:
        del params
        return jax.random.bernoulli(key, jax.nn.sigmoid(output)).astype(jnp.uint8)

    return Likelihood(
        init=dict,
        log_prob=lambda params, x, output: sum_event(bernoulli_log_prob(x, output)),
        sample=sample,
        mean=lambda params, output: jax.nn.sigmoid(output),
    )


def normal_likelihood() -> Likelihood:
    """Reals with independent noise of one learned scale: N(output, exp(log_scale)^2 I)."""

    def sample(params: Params, key: PRNGKey, output: Data) -> Data:
        return output + jnp.exp(params["log_scale"]) * jax.random.normal(key, output.shape)

    return Likelihood(
        init=lambda: {"log_scale": jnp.zeros(())},
        log_prob=lambda params, x, output: sum_event(normal_log_prob(x, output, params["log_scale"])),
        sample=sample,
        mean=lambda params, output: output,
    )
