"""Densities of data, bound to the output of a decoder."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.distributions.densities import bernoulli_log_prob, normal_log_prob, sum_event
from jaxgen.types import Data, Params, PRNGKey

__all__ = ["Likelihood", "bernoulli_likelihood", "normal_likelihood"]


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
