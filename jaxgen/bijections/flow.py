r"""Normalising flows: the model that a bijection and a standard normal base make, shared by every flow.

(1)  ln p(x|cond) = ln N(z; 0, I) + ln|det dz/dx|,  z = forward(x, cond)
(2)  x = inverse(z, cond),  z ~ N(0, I)
"""

from collections.abc import Callable, Sequence

import jax
from jaxtyping import Array, Float

from jaxgen.bijections.base import Bijection, forward, inverse
from jaxgen.core import Model
from jaxgen.types import Batch, Carry, Cond, Metrics, Params, PerExample, PRNGKey

__all__ = ["flow"]

Data = Float[Array, "n ..."]


def flow(
    bijection: Bijection, base_shape: Sequence[int], *, noisy: Callable[[PRNGKey], Bijection] | None = None
) -> Model:
    """Builds the density of data whose base is standard normal.

    Args:
        bijection: the map between data x (reals) and base z.
        base_shape: shape of one example of z.
        noisy: `key -> bijection`, the same map with an unbiased random estimate of its log-determinant, cheaper than
            the exact one: for the `loss`, and for an `elbo` whose mean is ln p(x|cond).

    Returns:
        A `Model` with the exact `log_prob` (1), `sample` (2), `encode` (x to z, no noise) and `decode` (z to x). Its
        `loss` is the mean negative log-likelihood in nats.

    Raises:
        ValueError: when called, if the data becomes a base of another shape.

    Source: Normalizing Flows for Probabilistic Modeling and Inference, https://arxiv.org/abs/1912.02762.
    """
    base_shape = tuple(base_shape)

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        return bijection.init(key, batch.x, batch.cond), ()

    def log_density(bijection: Bijection, params: Params, x: Data, cond: Cond) -> PerExample:
        z, log_det = bijection.forward_and_log_det(params, x, cond)
        if z.shape[1:] != base_shape:
            raise ValueError(f"expected data whose base has the shape {base_shape}, got one of {z.shape[1:]}")
        return jax.scipy.stats.norm.logpdf(z).reshape(x.shape[0], -1).sum(-1) + log_det

    def log_prob(params: Params, x: Data, cond: Cond = None) -> PerExample:
        return log_density(bijection, params, x, cond)

    def elbo(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        return log_density(noisy(key) if noisy else bijection, params, x, cond)

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        return -elbo(params, key, batch.x, batch.cond).mean(), (carry, {})

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        return inverse(bijection, params, jax.random.normal(key, (num, *base_shape)), cond)

    def encode(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Data:
        del key
        return forward(bijection, params, x, cond)

    def decode(params: Params, latent: Data, cond: Cond = None) -> Data:
        return inverse(bijection, params, latent, cond)

    bound = elbo if noisy else None
    return Model(init=init, loss=loss, sample=sample, log_prob=log_prob, elbo=bound, encode=encode, decode=decode)
