"""Our side of a comparison: a train step that is started again and again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxgen.core import Model
from jaxgen.parallel import Placement
from jaxgen.types import Batch, Params

__all__ = ["training"]


def training(
    placement: Placement, model: Model, tx: optax.GradientTransformation, data: Batch
) -> tuple[Callable[[], Any], Params]:
    """What starts a train step on the same data, to be waited for, and the parameters before the first one."""
    states = [placement.init_state(model, tx, jax.random.key(1), data)]
    params = jax.tree.map(jnp.copy, states[0].params)  # a step uses its state up
    step, data = placement.train_step(model, tx), placement.put_batch(data)

    def train() -> Any:
        states[0], metrics = step(states[0], data)
        return states[0].params, metrics

    return train, params
