"""Labels that networks are conditioned on; what is out of range raises, or gives NaN where it is traced."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Integer, Num

from jaxgen.distributions import check_levels
from jaxgen.types import Cond

__all__ = ["check_labels", "known_or_too_large", "needed", "one_hot"]


def check_labels(labels: Num[Array, "n ..."], num_classes: int) -> None:
    """Checks labels `[n]`; vectors in their place, and what is traced, pass.

    Raises:
        ValueError: if one is not in 0 .. num_classes - 1.
    """
    if labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer):
        check_levels(labels, num_classes, f"a network of {num_classes} classes", name="labels")


def needed(cond: Cond, num_classes: int) -> Num[Array, "n ..."]:
    """The labels of a network that has classes: the place where every network but `WaveNet` is handed them.

    Raises:
        ValueError: if there are none; and, where they are not traced, if one is not in 0 .. num_classes - 1.
    """
    if cond is None:
        raise ValueError(f"a network of {num_classes} classes needs a label for every example, got cond=None")
    check_labels(cond, num_classes)
    return cond


def known_or_too_large(labels: Num[Array, "*shape"], num: int) -> Num[Array, "*shape"]:
    """Labels of `num` classes to look vectors up by, where a negative one would count from the end; reals unchanged."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        return labels
    return jnp.where(labels < 0, num, labels)


def one_hot(labels: Integer[Array, " n"], num_classes: int, dtype: Any = jnp.float32) -> Float[Array, "n classes"]:
    """One row for each label, NaN for those out of range."""
    known = (labels >= 0) & (labels < num_classes)
    return jnp.where(known[:, None], nn.one_hot(labels, num_classes, dtype=dtype), jnp.nan)
