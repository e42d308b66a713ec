r"""MADE in several orders: one perceptron whose masks change, and the mixture of what it says under each.

With K orders of the numbers of an example, each with masks of its own, all of them over the same parameters:

    (1)  ln p_k(x|c) = sum_i ln p(x_i | the x_j that order k has before i, c)
    (2)  loss = -ln p_k(x|c), k drawn anew at every step
    (3)  p(x|c) = (1/K) sum_k p_k(x|c)
    (4)  sample: k drawn, then x number by number in its order

Source: MADE: Masked Autoencoder for Distribution Estimation, sections 4.1 and 4.2, https://arxiv.org/abs/1502.03509.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.core import Model
from jaxgen.distributions import categorical_conditional, check_levels, stored, sum_event, tokens
from jaxgen.nets import causal
from jaxgen.nets.labels import needed
from jaxgen.nets.made import MADE
from jaxgen.nets.masked import Degrees, random_degrees
from jaxgen.samplers.decode import decode
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["made_ensemble"]


def made_ensemble(net: MADE, *, num_masks: int, seed: int = 0) -> Model:
    """Builds (2), (3) and (4) over a MADE whose own order is not used.

    Args:
        net: gives the logits of all numbers.
        num_masks: K, the number of orders; the published ensembles have 32.
        seed: of the orders and masks, which belong to the model: parameters are of use only with the same seed.

    Returns:
        A `Model` of integers `[n, *net.shape]` with `log_prob`, exact, in nats, which takes K passes. The `loss` is the
        mean of (2), not below that of (3) on average. Every example of `sample` is drawn in an order of its own.

    Raises:
        ValueError: if there is no mask; when called, if the data is not of an integer type or, of `log_prob`, has
            another shape; and, where they are not traced, if there are levels or labels that there are not.

    Source: MADE, https://arxiv.org/abs/1502.03509.
    """
    if num_masks < 1:
        raise ValueError(f"num_masks must be at least 1, got {num_masks}")
    num_dims, conditional = math.prod(net.shape), categorical_conditional(net.num_levels)

    def masks_of(k: Any) -> Degrees:
        key = jax.random.fold_in(jax.random.key(seed), k)
        return random_degrees(key, num_dims, net.widths, conditional=net.num_classes > 0)

    def logits(params: Params, x: Data, cond: Cond, masks: Degrees) -> Any:
        return net.apply({"params": params}, x, cond, masks=masks)

    def checked(x: Data) -> Data:
        found = tokens(x, "made_ensemble")
        check_levels(x, net.num_levels, "the model")
        return found

    def terms(params: Params, x: Data, cond: Cond, k: Any) -> PerExample:
        """(1)."""
        return sum_event(conditional.log_prob(x, logits(params, x, cond, masks_of(k))))

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        cond = jax.tree.map(lambda leaf: leaf[:1], batch.cond)
        return net.init(key, jnp.zeros((1, *net.shape), jnp.int32), cond)["params"], ()

    def loss(
        params: Params, carry: Carry, key: PRNGKey, batch: Batch
    ) -> tuple[Float[Array, ""], tuple[Carry, Metrics]]:
        k = jax.random.randint(key, (), 0, num_masks)
        return -terms(params, checked(batch.x), batch.cond, k).mean(), (carry, {})

    def log_prob(params: Params, x: Data, cond: Cond = None) -> PerExample:
        if x.shape[1:] != tuple(net.shape):
            raise ValueError(f"expected examples of shape {tuple(net.shape)}, got {x.shape[1:]}")
        x = checked(x)
        each = jax.lax.map(lambda k: terms(params, x, cond, k), jnp.arange(num_masks))
        return jax.nn.logsumexp(each, axis=0) - jnp.log(num_masks)

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        cond = needed(cond, net.num_classes) if net.num_classes else None  # before `map` traces it

        def one(inputs: tuple[PRNGKey, Cond]) -> Data:
            key, cond = inputs
            order_key, key = jax.random.split(key)
            masks = masks_of(jax.random.randint(order_key, (), 0, num_masks))
            step = functools.partial(causal.step, net, params, masks=masks)
            empty = jnp.zeros((1, num_dims), jnp.int32)
            state = causal.start(net, params, empty[:, 0], jax.tree.map(lambda leaf: leaf[None], cond), masks=masks)
            return decode(step, conditional.sample, key, state, empty, 0)[0, masks.order]

        x = jax.lax.map(one, (jax.random.split(key, num), cond))
        return stored(x.reshape(num, *net.shape), net.num_levels)

    return Model(init=init, loss=loss, sample=sample, log_prob=log_prob)
