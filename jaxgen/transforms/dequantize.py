r"""Dequantisation: a model of reals y in [0, 1) becomes one of integers x in {0, ..., L - 1} in each of D dimensions.

    (1)  P(x) = integral of p(y) over the cell x <= L y < x + 1 = E_u[ p((x + u) / L) ] L^-D,  u ~ U[0, 1)^D
    (2)  ln w = ln p((x + u) / L) - D ln L,  E[w] = P(x),  E[ln w] <= ln P(x)

Source: A note on the evaluation of generative models, section 3.1, https://arxiv.org/abs/1511.01844.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import Model
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["dequantize"]

Field = Callable[..., Any] | None


def dequantize(model: Model, num_levels: int) -> Model:
    """A model of reals in [0, 1) becomes a model of integers, by uniform noise.

    Its `log_weight` and `elbo` are (2), from the wrapped model's `log_prob`, or else from its `log_weight` and `elbo`;
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
    """The weight (2), from the exact ln p(y) if there is one, or else from a weight or a bound of it."""
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
