"""Densities of one element of a sequence, bound to the output of an autoregressive network."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgen.distributions.densities import categorical_log_prob
from jaxgen.types import Data, PRNGKey

__all__ = ["Conditional", "categorical_conditional", "categorical_ending", "with_end"]


class Conditional(NamedTuple):
    """Density of one element of a sequence given the output of an autoregressive network.

    Attributes:
        num_levels: number of values of an element, or of each number in it.
        num_outputs: k, how many numbers describe one element.
        event_ndim: number of axes of an element: 0 for tokens, 1 for pixels of several channels.
        log_prob: `(element [...], output [..., k]) -> [...]`, in nats, the axes of an element summed over.
        sample: `(key, output [..., k]) -> element`, `int32`.
        ending: `(output [..., k], *, end, certain=[...], impossible=[...]) -> output` in which the token `end` has
            probability 1 where that is certain and 0 where it is impossible; `None` where outputs cannot say it.
    """

    num_levels: int
    num_outputs: int
    event_ndim: int
    log_prob: Callable[..., Any]
    sample: Callable[..., Any]
    ending: Callable[..., Any] | None = None


def categorical_ending(logits: Any, *, end: int, certain: Any = False, impossible: Any = False) -> Any:
    """The `ending` of a `Conditional` whose output holds logits: -inf for what is impossible, 0 for a certain end."""
    is_end = jnp.arange(logits.shape[-1]) == end
    possible = jnp.where(is_end & jnp.asarray(impossible)[..., None], -jnp.inf, logits)
    return jnp.where(jnp.asarray(certain)[..., None], jnp.where(is_end, 0.0, -jnp.inf), possible)


def categorical_conditional(num_levels: int, *, choose: Callable[..., Any] = jax.random.categorical) -> Conditional:
    """Tokens of which the output holds the logits.

    Args:
        num_levels: number of values of a token.
        choose: `(key, logits) -> token` of samples, such as those of `samplers.decode`; it leaves `log_prob` alone.

    Raises:
        ValueError: if `num_levels` is below 2.
    """
    if num_levels < 2:
        raise ValueError(f"num_levels must be at least 2, got {num_levels}")
    return Conditional(num_levels, num_levels, 0, categorical_log_prob, choose, categorical_ending)


def with_end(inner: Conditional) -> Conditional:
    r"""Tokens of another density and one more, the end, with a logit of its own.

    With L = `inner.num_levels` and the output (e, o): p(x = L) = sigmoid(e - ln L), and p(x) = sigmoid(ln L - e)
    inner(x | o) below; at e = 0 the end has 1 / (L + 1), as much as a level has where they are alike. A mixture of
    logistics, whose last level takes all of the upper tail, cannot say at once that a sound is loud and that it goes
    on; this can.

    Raises:
        ValueError: if the elements have axes; of `ending`, if the end is not L.
    """
    if inner.event_ndim:
        raise ValueError(f"only tokens can have an end, not elements of {inner.event_ndim} axes")
    last, offset = inner.num_levels, math.log(inner.num_levels)

    def log_prob(x: Num[Array, "*batch"], output: Float[Array, "*batch k"]) -> Float[Array, "*batch"]:
        logit, is_end = output[..., 0] - offset, x == last
        below = jax.nn.log_sigmoid(-logit) + inner.log_prob(jnp.where(is_end, 0, x), output[..., 1:])
        return jnp.where(is_end, jax.nn.log_sigmoid(logit), below)

    def sample(key: PRNGKey, output: Float[Array, "*batch k"]) -> Data:
        end_key, inner_key = jax.random.split(key)
        is_end = jax.random.bernoulli(end_key, jax.nn.sigmoid(output[..., 0] - offset))
        return jnp.where(is_end, last, inner.sample(inner_key, output[..., 1:]))

    def ending(output: Any, *, end: int, certain: Any = False, impossible: Any = False) -> Any:
        if end != last:
            raise ValueError(f"the end of this density is {last}, got {end}")
        logit = jnp.where(certain, jnp.inf, jnp.where(impossible, -jnp.inf, output[..., 0]))
        return output.at[..., 0].set(logit)

    return Conditional(last + 1, inner.num_outputs + 1, 0, log_prob, sample, ending)
