"""Averages of log-likelihoods over a data set, with their uncertainty.

With values v_1 .. v_n, independent:

    (1)  mean = sum v_i / n
    (2)  standard error = sqrt(sum (v_i - mean)^2 / (n (n - 1)))

Bits per dimension of a log-likelihood are `jaxgen.core.bits_per_dim`; they are linear in it, so that both (1) and (2)
may be taken after the conversion.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxgen.types import PerExample, Scalar

__all__ = ["Estimate", "mean_with_error"]


class Estimate(NamedTuple):
    """A number and how far it may be off.

    Attributes:
        value: the estimate.
        error: its standard error, in the same unit.
    """

    value: Scalar
    error: Scalar


def mean_with_error(values: PerExample) -> Estimate:
    """The mean (1) and its standard error (2).

    Two passes, so that float32 keeps the spread of log-likelihoods that are far from zero.

    Args:
        values: `[n]`, one number per example (log-probabilities in nats, say); n >= 2.

    Returns:
        Mean and standard error, in the unit of `values`.

    Raises:
        ValueError: if there are fewer than two values.
    """
    (n,) = values.shape
    if n < 2:
        raise ValueError(f"a standard error needs at least 2 values, got {n}")
    first = values.mean()
    mean = first + (values - first).mean()
    return Estimate(mean, jnp.sqrt(((values - mean) ** 2).sum() / (n * (n - 1))))
