"""The optimiser that most configs share."""

import optax

from experiments.config import Config

__all__ = ["cosine_adam"]


def cosine_adam(
    config: Config, *, max_norm: float | None = None, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Adam, whose step size falls from `learning_rate` to 0 along a half cosine over all `steps`.

    Args:
        config: the step size and the number of steps.
        max_norm: norm to which gradients are clipped, if they are.
        weight_decay: decay of the parameters, of AdamW.
    """
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    tx = optax.adamw(schedule, weight_decay=weight_decay) if weight_decay else optax.adam(schedule)
    return tx if max_norm is None else optax.chain(optax.clip_by_global_norm(max_norm), tx)
