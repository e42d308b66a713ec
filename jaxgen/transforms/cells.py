r"""Integers as cells of reals: what every dequantisation shares.

With L levels in each of D dimensions, x in {0, ..., L - 1}^D is the cell x <= L y < x + 1 of the unit cube:

    (1)  P(x) = integral of p(y) over the cell = E_{u ~ q(u|x)}[ p((x + u) / L) L^-D / q(u|x) ]
    (2)  ln w = ln p((x + u) / L) - ln q(u|x) - D ln L,  E[w] = P(x),  E[ln w] <= ln P(x)

Source: A note on the evaluation of generative models, section 3.1, https://arxiv.org/abs/1511.01844.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen import distributions
from jaxgen.core import Model
from jaxgen.types import Cond, Data, Params, PerExample, PRNGKey

__all__ = ["BORDER", "check_levels", "of_integers", "place", "uniform_noise"]

BORDER = 2.0**-15
"""How near noise comes to 0 and to 1: (x + u) / L stays inside its cell in float32 for up to 256 levels."""

Field = Callable[..., Any] | None


def check_levels(num_levels: int) -> None:
    """Raises a ValueError unless 2 <= num_levels <= 256."""
    if not 2 <= num_levels <= 256:
        raise ValueError(f"num_levels must be at least 2 and at most 256, got {num_levels}")


def uniform_noise(key: PRNGKey, x: Data) -> Float[Array, "n ..."]:
    """Uniform noise for every element, on a grid of midpoints from `BORDER` to 1 - `BORDER`."""
    return (2 * jax.random.randint(key, x.shape, 0, round(0.5 / BORDER)) + 1) * BORDER


def place(x: Data, noise: Data | float, num_levels: int) -> Data:
    """The real y = (x + noise) / L, NaN where a traced x is no level.

    Raises:
        ValueError: if x is not of an integer type, or, where it is not traced, has a level that there is not.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"dequantisation expects integers 0, ..., {num_levels - 1}, got data of type {x.dtype}")
    distributions.check_levels(x, num_levels, "dequantisation")
    return jnp.where(distributions.known(x, num_levels), (x + noise) / num_levels, jnp.nan)


def of_integers(
    model: Model,
    num_levels: int,
    noisy: Callable[..., tuple[Any, Any]],
    own: Callable[[Params], Params],
    **init_and_loss: Any,
) -> Model:
    """The model of integers that a model of reals and noise make, by (2).

    Args:
        model: a model of reals in [0, 1).
        num_levels: L.
        noisy: `(params, key, x, cond) -> (y, ln q [n])`, a real of each cell and the log-density of its noise.
        own: `params -> params of the wrapped model`.
        init_and_loss: those two fields.

    Returns:
        A `Model` of integers, with the other fields of the wrapped one that integers have.
    """

    def weighted(exact: Field, bound: Field) -> Field:
        """(2), from the exact ln p(y) if there is one, or else from a weight or a bound of it."""
        if exact is None and bound is None:
            return None

        def field(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
            noise_key, key = jax.random.split(key)
            y, log_noise = noisy(params, noise_key, x, cond)
            inner = own(params)
            log_density = bound(inner, key, y, cond) if exact is None else exact(inner, y, cond)  # type: ignore[misc]
            return log_density - log_noise - math.prod(x.shape[1:]) * math.log(num_levels)

        return field

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        return _to_levels(model.sample(own(params), key, num, cond), num_levels)

    def encode(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Any:
        noise_key, key = jax.random.split(key)
        return model.encode(own(params), key, noisy(params, noise_key, x, cond)[0], cond)  # type: ignore[misc]

    def decode(params: Params, latent: Any, cond: Cond = None) -> Data:
        return _to_levels(model.decode(own(params), latent, cond), num_levels)  # type: ignore[misc]

    return Model(
        sample=sample,
        log_weight=weighted(model.log_prob, model.log_weight),
        elbo=weighted(model.log_prob, model.elbo),
        encode=None if model.encode is None else encode,
        decode=None if model.decode is None else decode,
        carry_spec=model.carry_spec,
        **init_and_loss,
    )


def _to_levels(y: Data, num_levels: int) -> Data:
    return jnp.clip(jnp.floor(num_levels * y), 0, num_levels - 1).astype(jnp.uint8)
