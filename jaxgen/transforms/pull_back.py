r"""A change of coordinates: z = T(x) with a bijection T that has no parameters.

(1)  ln p(x) = ln p(z) + ln|det dz/dx|, and so for every bound and weight; energies get the opposite sign
(2)  d ln p_t(x)/dx = (dz/dx)^T s_t(z) + d ln|det dz/dx| / dx
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.bijections import Bijection, forward, inverse
from jaxgen.core import Model
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["pull_back"]

Field = Callable[..., Any] | None


def pull_back(model: Model, bijection: Bijection) -> Model:
    """A model of z becomes a model of x, where z = forward(x).

    Every likelihood field is that of x, by (1) and (2). The `loss` is the wrapped model's own on the batch of z, and
    its metrics are unchanged: since the bijection has no parameters, the log-determinant moves no gradient, and the
    losses of models without a likelihood have no place for it. A loss that is a negative log-likelihood is therefore
    that of z; ask `log_prob` or `elbo` for that of x. Parameters, latents and `carry` are the wrapped model's own.

    Args:
        model: a model of z.
        bijection: a bijection without parameters, which may depend on `cond`.

    Returns:
        A `Model` of x with the fields that `model` has.

    Raises:
        ValueError: from `init`, if the bijection has parameters.
    """

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        shapes = jax.eval_shape(bijection.init, key, batch.x, batch.cond)
        if jax.tree.leaves(shapes):
            raise ValueError(f"pull_back needs a bijection without parameters, got one with {shapes}")
        return model.init(key, Batch(forward(bijection, {}, batch.x, batch.cond), batch.cond))

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Any, tuple[Carry, Metrics]]:
        return model.loss(params, carry, key, Batch(forward(bijection, {}, batch.x, batch.cond), batch.cond))

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        return inverse(bijection, {}, model.sample(params, key, num, cond), cond)

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=_pull_back_exact(model.log_prob, bijection, 1),
        log_weight=_pull_back_noisy(model.log_weight, bijection),
        elbo=_pull_back_noisy(model.elbo, bijection),
        energy=_pull_back_exact(model.energy, bijection, -1),
        score=_pull_back_score(model.score, bijection),
        encode=_pull_back_encode(model.encode, bijection),
        decode=_pull_back_decode(model.decode, bijection),
        carry_spec=model.carry_spec,
    )


def _pull_back_exact(field: Field, bijection: Bijection, sign: int) -> Field:
    """`log_prob` (sign 1) or `energy` (sign -1) by (1)."""
    if field is None:
        return None

    def pulled(params: Params, x: Data, cond: Cond = None) -> PerExample:
        z, log_det = bijection.forward_and_log_det({}, x, cond)
        return field(params, z, cond) + sign * log_det

    return pulled


def _pull_back_noisy(field: Field, bijection: Bijection) -> Field:
    """`log_weight` or `elbo` by (1)."""
    if field is None:
        return None

    def pulled(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        z, log_det = bijection.forward_and_log_det({}, x, cond)
        return field(params, key, z, cond) + log_det

    return pulled


def _pull_back_score(field: Field, bijection: Bijection) -> Field:
    """`score` by (2)."""
    if field is None:
        return None

    def pulled(params: Params, x: Data, t: Any, cond: Cond = None) -> Data:
        (z, log_det), vjp = jax.vjp(lambda x: bijection.forward_and_log_det({}, x, cond), x)
        return vjp((field(params, z, t, cond), jnp.ones_like(log_det)))[0]

    return pulled


def _pull_back_encode(field: Field, bijection: Bijection) -> Field:
    if field is None:
        return None

    def pulled(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Any:
        return field(params, key, forward(bijection, {}, x, cond), cond)

    return pulled


def _pull_back_decode(field: Field, bijection: Bijection) -> Field:
    if field is None:
        return None

    def pulled(params: Params, latent: Any, cond: Cond = None) -> Data:
        return inverse(bijection, {}, field(params, latent, cond), cond)

    return pulled
