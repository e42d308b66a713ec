r"""Dequantisation: a model of reals y in [0, 1) becomes one of integers x in {0, ..., L - 1} in each of D dimensions.

    (1)  P(x) = integral of p(y) over the cell x <= L y < x + 1 = E_u[ p((x + u) / L) L^-D ],  u ~ U[0, 1)^D
    (2)  ln w = ln p((x + u) / L) - D ln L,  E[w] = P(x),  E[ln w] <= ln P(x)

Source: A note on the evaluation of generative models, section 3.1, https://arxiv.org/abs/1511.01844.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import Model
from jaxgen.transforms import cells
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["dequantize"]


def dequantize(model: Model, num_levels: int) -> Model:
    """A model of reals in [0, 1) becomes a model of integers, by uniform noise.

    Its `log_weight` and `elbo` are (2), from the wrapped model's `log_prob`, or else from its `log_weight` and `elbo`;
    `log_prob`, `energy` and `score` are `None`: the sum over the cell has no closed form, and integers no gradient.
    Samples and decoded data are floor(L y), clipped to the levels, `uint8`. The `loss` is the wrapped model's own at
    y = (x + u) / L with fresh noise, without the constant D ln L, and its metrics are unchanged. `init` and `encode`
    are handed data with noise, too. `variational_dequantize` learns the noise and has a closer bound.

    Args:
        model: a model of reals in [0, 1).
        num_levels: L, the number of levels, 2 <= L <= 256.

    Returns:
        A `Model` of integers 0, ..., L - 1.

    Raises:
        ValueError: if L is out of range; when called, if the data is not of an integer type.

    Source: A note on the evaluation of generative models, section 3.1, https://arxiv.org/abs/1511.01844.
    """
    cells.check_levels(num_levels)

    def with_noise(key: PRNGKey, batch: Batch) -> Batch:
        return Batch(cells.place(batch.x, cells.uniform_noise(key, batch.x), num_levels), batch.cond)

    def noisy(params: Params, key: PRNGKey, x: Data, cond: Cond) -> tuple[Data, PerExample]:
        del params
        return with_noise(key, Batch(x, cond)).x, jnp.zeros(x.shape[0])

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        noise_key, key = jax.random.split(key)
        return model.init(key, with_noise(noise_key, batch))

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Any, tuple[Carry, Metrics]]:
        noise_key, key = jax.random.split(key)
        return model.loss(params, carry, key, with_noise(noise_key, batch))

    return cells.of_integers(model, num_levels, noisy, lambda params: params, init=init, loss=loss)
