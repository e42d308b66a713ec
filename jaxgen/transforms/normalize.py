r"""Normalisation: an energy and its constant are a likelihood, ln p(x) = -energy(x) - ln Z."""

from collections.abc import Callable
from typing import Any

from jaxgen.core import Model
from jaxgen.types import Cond, Params, PerExample

__all__ = ["normalize"]


def normalize(model: Model, log_partition: Callable[[Params], Any]) -> Model:
    """Gives a model of an energy its likelihood: log_prob(x) = -energy(x) - ln Z.

    Args:
        model: a model that defines `energy`.
        log_partition: `params -> ln Z`, in nats; as exact as it is, `log_prob` is.

    Returns:
        The model with `log_prob`, all else as before.

    Raises:
        ValueError: if the model has no `energy`.
    """
    if model.energy is None:
        raise ValueError("normalize needs a model with energy, and it is None")
    energy = model.energy

    def log_prob(params: Params, x: Any, cond: Cond = None) -> PerExample:
        return -energy(params, x, cond) - log_partition(params)

    return model._replace(log_prob=log_prob)
