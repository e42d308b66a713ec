r"""Dropping conditions: some examples are trained without their label, so that one network knows both densities.

(1)  cond' = null with probability r, cond otherwise, for each example on its own

A network of K classes gets K + 1 labels, of which the last is the null label; asked with it, it is unconditional.

Source: Classifier-Free Diffusion Guidance, https://arxiv.org/abs/2207.12598, algorithm 1.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core import Model
from jaxgen.nets.reading import check_read
from jaxgen.types import Batch, Carry, Cond, Metrics, Params, PRNGKey

__all__ = ["drop_condition"]


def drop_condition(model: Model, rate: float, *, null: int) -> Model:
    """Trains a model with (1), for `classifier_free_guidance`; everything but the loss is as before.

    Args:
        model: a model of labels 0, ..., null, whose network must know the last (`num_classes=null + 1`). Labels are
            not checked here, where they are traced: out of range, they give NaN in the networks of this library.
        rate: r, in [0, 1]; 0.1 to 0.2 is usual.
        null: the null label, by which every entry of the condition is replaced; the number of classes, usually.

    Returns:
        A `Model`.

    Raises:
        ValueError: if the rate is not in [0, 1] or the null label is negative; from `init` and the loss, if there are
            no labels; from `init`, if the model does not read them.

    Source: Classifier-Free Diffusion Guidance, https://arxiv.org/abs/2207.12598.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")
    if null < 0:
        raise ValueError(f"the null label must be at least 0, got {null}")

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        state = jax.eval_shape(model.init, key, batch)
        own = lambda state, key, x, cond: model.loss(*state, key, Batch(x, cond))[0]  # noqa: E731
        check_read("drop_condition", own, state, key, *batch)
        return model.init(key, batch)

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Any, tuple[Carry, Metrics]]:
        if batch.cond is None:
            raise ValueError("drop_condition needs a label for every example, got cond=None")
        drop_key, key = jax.random.split(key)
        dropped = jax.random.bernoulli(drop_key, rate, batch.x.shape[:1])
        return model.loss(params, carry, key, Batch(batch.x, _replaced(batch.cond, dropped, null)))

    return model._replace(init=init, loss=loss)


def _replaced(cond: Cond, where: Any, null: int) -> Cond:
    """The condition with the rows `where [n]` filled by `null`."""
    fill = lambda leaf: jnp.where(where.reshape(-1, *[1] * (leaf.ndim - 1)), null, leaf)  # noqa: E731
    return jax.tree.map(lambda leaf: fill(jnp.asarray(leaf)), cond)
