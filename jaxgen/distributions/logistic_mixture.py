"""Mixtures of discretised logistics, of tokens or of pixels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxgen.distributions.companding import expand
from jaxgen.distributions.conditional import Conditional
from jaxgen.distributions.densities import logistic_log_prob
from jaxgen.distributions.levels import known
from jaxgen.types import Data, PRNGKey

__all__ = ["logistic_mixture"]


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
    output: Float[Array, "*batch k"], num_components: int, num_channels: int, log_scales: tuple[float, float]
) -> _Mixture:
    """Reads the parameters from an output; `log_scales` are the least ln s and that of an output of 0.

    Coefficients are in (-1, 1).
    """
    least, start = log_scales
    parts = output.reshape(*output.shape[:-1], -1, num_components)
    logits, mean, log_scale, rest = jnp.split(parts, [1, 1 + num_channels, 1 + 2 * num_channels], axis=-2)
    rows, columns = jnp.tril_indices(num_channels, -1)
    zeros = jnp.zeros((*output.shape[:-1], num_channels, num_channels, num_components), output.dtype)
    coefficient = zeros.at[..., rows, columns, :].set(jnp.tanh(rest))
    return _Mixture(logits[..., 0, :], mean, jnp.maximum(log_scale + start, least), coefficient)


def logistic_mixture(
    num_levels: int,
    num_components: int,
    *,
    num_channels: int | None = None,
    min_log_scale: float = -7.0,
    log_scale: float = 0.0,
    companding: float = 0.0,
) -> Conditional:
    r"""Mixtures of discretised logistics, for tokens or for pixels whose channels depend on one another.

    p(x) = sum_k pi_k prod_c P(x_c | m_ck + sum_{d < c} a_cdk v_d, s_ck), with P of `logistic_log_prob` and v the levels
    scaled to [-1, 1]: every channel comes after those before it.

    Args:
        num_levels: number of values of a token, or of each channel.
        num_components: K.
        num_channels: C; None for tokens, which have no axis of channels.
        min_log_scale: the least ln s, where [-1, 1] holds all levels; -7 is narrow for 256 of them, wide for 65536.
        log_scale: ln s at an output of 0.
        companding: mu of the mu-law on whose scale the logistics stand, so that quiet levels lie as far apart as loud
            ones; 0 for the linear scale.

    Returns:
        A `Conditional` of outputs of K (1 + 2 C + C (C - 1) / 2) numbers; `log_prob` of what is no level is NaN.

    Raises:
        ValueError: if there are fewer than 2 levels, or no component or channel, or the companding is negative.

    Source: PixelCNN++, https://arxiv.org/abs/1701.05517, section 2.
    """
    channels = 1 if num_channels is None else num_channels
    if num_levels < 2 or num_components < 1 or channels < 1:
        raise ValueError(
            f"expected num_levels of at least 2, and num_components and num_channels of at least 1, got {num_levels}, "
            f"{num_components} and {channels}"
        )
    if companding < 0:
        raise ValueError(f"companding must be at least 0, got {companding}")
    log_scales = min_log_scale, log_scale

    def of_pixels(x: Num[Array, "*batch c"], output: Float[Array, "*batch k"]) -> Float[Array, "*batch"]:
        logits, mean, log_scale, coefficient = _mixture(output, num_components, channels, log_scales)
        scaled = 2 * x / (num_levels - 1) - 1.0
        mean = mean + jnp.einsum("...cdk,...d->...ck", coefficient, scaled)
        of_channels = logistic_log_prob(x[..., None], mean, log_scale, num_levels, companding)
        value = jax.nn.logsumexp(jax.nn.log_softmax(logits) + of_channels.sum(-2), axis=-1)
        return jnp.where(known(x, num_levels).all(-1), value, jnp.nan)

    def sample(key: PRNGKey, output: Float[Array, "*batch k"]) -> Data:
        component_key, noise_key = jax.random.split(key)
        logits, *rest = _mixture(output, num_components, channels, log_scales)
        chosen = jax.nn.one_hot(jax.random.categorical(component_key, logits), num_components)
        mean, log_scale, coefficient = (jnp.einsum("...k,...k->...", part, _over(chosen, part)) for part in rest)
        value = mean + jnp.exp(log_scale) * jax.random.logistic(noise_key, mean.shape)
        x = jnp.zeros(mean.shape)
        for c in range(channels):
            shift = jnp.einsum("...d,...d->...", coefficient[..., c, :], 2 * x / (num_levels - 1) - 1)
            v = expand(jnp.clip(value[..., c] + shift, -1, 1), companding)
            x = x.at[..., c].set(jnp.round((v + 1) / 2 * (num_levels - 1)))
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
