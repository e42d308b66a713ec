"""Leaf densities as functions: elementwise log-probabilities in nats, and the sum over one example.

Every function broadcasts its arguments and returns one number for each element; `sum_event` adds up the elements of
each example. A `Likelihood` binds a density to the output of a decoder, a `Conditional` to that of an autoregressive
network.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from jaxgen.types import Data, Params, PerExample, PRNGKey

__all__ = [
    "Conditional",
    "Likelihood",
    "bernoulli_likelihood",
    "bernoulli_log_prob",
    "categorical_conditional",
    "categorical_ending",
    "categorical_log_prob",
    "check_levels",
    "known",
    "logistic_log_prob",
    "logistic_mixture",
    "normal_kl",
    "normal_likelihood",
    "normal_log_prob",
    "stored",
    "sum_event",
    "tokens",
    "with_end",
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
    normalised, index = jax.nn.log_softmax(logits), x[..., None].astype(jnp.int32)
    index = jnp.where(index < 0, logits.shape[-1], index)  # a negative one would count from the end
    return jnp.take_along_axis(normalised, index, axis=-1, mode="fill", fill_value=jnp.nan)[..., 0]


def tokens(x: Data, what: str) -> Data:
    """Data of integers as `int32`; `what` expects them.

    Raises:
        ValueError: if the data is not of an integer type.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{what} expects integers, got data of type {x.dtype}")
    return x.astype(jnp.int32)


def stored(x: Data, num_levels: int) -> Data:
    """Drawn levels in the type that models give them: `uint8`, or as they are where there are more than 256."""
    return x.astype(jnp.uint8) if num_levels <= 256 else x


def check_levels(x: Data, num_levels: int, what: str) -> None:
    """Checks that integers are levels; those that are traced pass, since their values are not known.

    By numpy, since what a compiled function holds is known, and jax would trace the check.

    Raises:
        ValueError: if one is not in 0 .. num_levels - 1.
    """
    if isinstance(x, jax.core.Tracer) or x.size == 0:
        return
    values = np.asarray(x)
    for value in (int(values.min()), int(values.max())):
        if not 0 <= value < num_levels:
            raise ValueError(f"{what} knows the levels 0 to {num_levels - 1}, got {value}")


def known(x: Num[Array, "*shape"], num_levels: int) -> Bool[Array, "*shape"]:
    """Where integers are levels 0 .. num_levels - 1; `num_levels` itself may be too large for their type."""
    x = x.astype(jnp.int32)
    return (x >= 0) & (x < num_levels)


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

    With L = `inner.num_levels` and the output (e, o): p(x = L) = sigmoid(e), and p(x) = sigmoid(-e) inner(x | o) below.
    A mixture of logistics, whose last level takes all of the upper tail, cannot say at once that a sound is loud and
    that it goes on; this can.

    Raises:
        ValueError: if the elements have axes; of `ending`, if the end is not L.
    """
    if inner.event_ndim:
        raise ValueError(f"only tokens can have an end, not elements of {inner.event_ndim} axes")
    last = inner.num_levels

    def log_prob(x: Num[Array, "*batch"], output: Float[Array, "*batch k"]) -> Float[Array, "*batch"]:
        logit, is_end = output[..., 0], x == last
        below = jax.nn.log_sigmoid(-logit) + inner.log_prob(jnp.where(is_end, 0, x), output[..., 1:])
        return jnp.where(is_end, jax.nn.log_sigmoid(logit), below)

    def sample(key: PRNGKey, output: Float[Array, "*batch k"]) -> Data:
        end_key, inner_key = jax.random.split(key)
        is_end = jax.random.bernoulli(end_key, jax.nn.sigmoid(output[..., 0]))
        return jnp.where(is_end, last, inner.sample(inner_key, output[..., 1:]))

    def ending(output: Any, *, end: int, certain: Any = False, impossible: Any = False) -> Any:
        if end != last:
            raise ValueError(f"the end of this density is {last}, got {end}")
        logit = jnp.where(certain, jnp.inf, jnp.where(impossible, -jnp.inf, output[..., 0]))
        return output.at[..., 0].set(logit)

    return Conditional(last + 1, inner.num_outputs + 1, 0, log_prob, sample, ending)


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


def logistic_log_prob(
    x: Num[Array, "*#shape"], mean: Float[Array, "*#shape"], log_scale: Float[Array, "*#shape"], num_levels: int
) -> Float[Array, "*shape"]:
    """Log-probability of levels 0 .. L - 1 whose cells are those of a logistic density on [-1, 1].

    With v = 2 x / (L - 1) - 1, h = 1 / (L - 1), a = (v + h - mean) / s, b = (v - h - mean) / s and the sigmoid S, it is
    ln (S(a) - S(b)) = ln S(a) + ln S(-b) + ln (1 - exp(b - a)), where b = -inf for the first level and a = inf for the
    last: the form does not cancel far from the mean.
    """
    inverse_scale, half = jnp.exp(-log_scale), 1 / (num_levels - 1)
    centred = 2 * half * x - 1 - mean
    above, below = (centred + half) * inverse_scale, (centred - half) * inverse_scale
    inside = jax.nn.log_sigmoid(above) + jax.nn.log_sigmoid(-below) + jnp.log(-jnp.expm1(-2 * half * inverse_scale))
    first = jnp.where(x == 0, jax.nn.log_sigmoid(above), inside)
    return jnp.where(x == num_levels - 1, jax.nn.log_sigmoid(-below), first)


class _Mixture(NamedTuple):
    """Parameters of K components of C channels.

    Attributes:
        logits: `[.., K]`.
        mean: `[.., C, K]`.
        log_scale: `[.., C, K]`.
        coefficient: `[.., C, C, K]`, how a channel's mean depends on the channels before.
    """

    logits: Any
    mean: Any
    log_scale: Any
    coefficient: Any


def _mixture(
    output: Float[Array, "*batch k"], num_components: int, num_channels: int, min_log_scale: float
) -> _Mixture:
    """Reads the parameters from an output; the logarithms of scales are bounded below, coefficients in (-1, 1)."""
    parts = output.reshape(*output.shape[:-1], -1, num_components)
    logits, mean, log_scale, rest = jnp.split(parts, [1, 1 + num_channels, 1 + 2 * num_channels], axis=-2)
    rows, columns = jnp.tril_indices(num_channels, -1)
    zeros = jnp.zeros((*output.shape[:-1], num_channels, num_channels, num_components), output.dtype)
    coefficient = zeros.at[..., rows, columns, :].set(jnp.tanh(rest))
    return _Mixture(logits[..., 0, :], mean, jnp.maximum(log_scale, min_log_scale), coefficient)


def logistic_mixture(
    num_levels: int, num_components: int, *, num_channels: int | None = None, min_log_scale: float = -7.0
) -> Conditional:
    r"""Mixtures of discretised logistics, for tokens or for pixels whose channels depend on one another.

    p(x) = sum_k pi_k prod_c P(x_c | m_ck + sum_{d < c} a_cdk v_d, s_ck), with P of `logistic_log_prob` and v the levels
    scaled to [-1, 1]: every channel comes after those before it.

    Args:
        num_levels: number of values of a token, or of each channel.
        num_components: K.
        num_channels: C; None for tokens, which have no axis of channels.
        min_log_scale: the least ln s, where [-1, 1] holds all levels; -7 is narrow for 256 of them, wide for 65536.

    Returns:
        A `Conditional` of outputs of K (1 + 2 C + C (C - 1) / 2) numbers; `log_prob` of what is no level is NaN.

    Raises:
        ValueError: if there are fewer than 2 levels, or no component or channel.

    Source: PixelCNN++, https://arxiv.org/abs/1701.05517, section 2.
    """
    channels = 1 if num_channels is None else num_channels
    if num_levels < 2 or num_components < 1 or channels < 1:
        raise ValueError(
            f"expected num_levels of at least 2, and num_components and num_channels of at least 1, got {num_levels}, "
            f"{num_components} and {channels}"
        )

    def of_pixels(x: Num[Array, "*batch c"], output: Float[Array, "*batch k"]) -> Float[Array, "*batch"]:
        logits, mean, log_scale, coefficient = _mixture(output, num_components, channels, min_log_scale)
        scaled = 2 * x / (num_levels - 1) - 1.0
        mean = mean + jnp.einsum("...cdk,...d->...ck", coefficient, scaled)
        of_channels = logistic_log_prob(x[..., None], mean, log_scale, num_levels)
        value = jax.nn.logsumexp(jax.nn.log_softmax(logits) + of_channels.sum(-2), axis=-1)
        return jnp.where(known(x, num_levels).all(-1), value, jnp.nan)

    def sample(key: PRNGKey, output: Float[Array, "*batch k"]) -> Data:
        component_key, noise_key = jax.random.split(key)
        logits, *rest = _mixture(output, num_components, channels, min_log_scale)
        chosen = jax.nn.one_hot(jax.random.categorical(component_key, logits), num_components)
        mean, log_scale, coefficient = (jnp.einsum("...k,...k->...", part, _over(chosen, part)) for part in rest)
        value = mean + jnp.exp(log_scale) * jax.random.logistic(noise_key, mean.shape)
        x = jnp.zeros(mean.shape)
        for c in range(channels):
            shift = jnp.einsum("...d,...d->...", coefficient[..., c, :], 2 * x / (num_levels - 1) - 1)
            level = jnp.round((value[..., c] + shift + 1) / 2 * (num_levels - 1))
            x = x.at[..., c].set(jnp.clip(level, 0, num_levels - 1))
        return x.astype(jnp.int32)

    num_outputs = num_components * (1 + 2 * channels + channels * (channels - 1) // 2)
    if num_channels is not None:
        return Conditional(num_levels, num_outputs, 1, of_pixels, sample)
    return Conditional(
        num_levels,
        num_outputs,
        0,
        lambda x, output: of_pixels(x[..., None], output),
        lambda key, output: sample(key, output)[..., 0],
    )


def _over(weights: Float[Array, "*batch k"], like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Weights `[.., k]` with axes of one before the last, to stand against `like`."""
    return weights.reshape(*weights.shape[:-1], *(1,) * (like.ndim - weights.ndim), weights.shape[-1])
