r"""Precision and recall of samples, by nearest neighbours.

With r_k(a) the distance from a to its k-th nearest neighbour within its own set, and the manifold of a set taken as
the union of the balls around its members:

    (1)  inside(b, A) = 1 if |b - a| <= r_k(a) for some a in A, else 0
    (2)  precision = mean over samples of inside(sample, data)       how many samples look like data
    (3)  recall    = mean over data of inside(datum, samples)        how much of the data is covered

Given the balls, (2) and (3) are means of zeros and ones with the standard error sqrt(p (1 - p) / (n - 1)); what the
choice of the balls adds is not in it.

Source: Improved Precision and Recall Metric for Assessing Generative Models, https://arxiv.org/abs/1904.06991.
"""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from jaxgen.metrics.likelihood import Estimate, mean_with_error

__all__ = ["PrecisionRecall", "precision_recall"]

Features = Float[Array, "n d"]
Other = Float[Array, "m d"]

_ROWS = 64
"""Rows worked on at a time: memory is _ROWS times the size of the other set."""


class PrecisionRecall(NamedTuple):
    """Both as fractions, with standard errors.

    Attributes:
        precision: how many samples look like data (2).
        recall: how much of the data is covered by samples (3).
    """

    precision: Estimate
    recall: Estimate


def _squared_distances(row: Float[Array, " d"], y: Other) -> Float[Array, " m"]:
    return ((row - y) ** 2).sum(-1)


def _squared_radii(x: Features, k: int) -> Float[Array, " n"]:
    """r_k^2 of every row; the row itself is the zeroth neighbour."""
    nearest = lambda row: -jax.lax.top_k(-_squared_distances(row, x), k + 1)[0][-1]  # noqa: E731
    return jax.lax.map(nearest, x, batch_size=_ROWS)


def _inside(points: Features, centres: Other, squared_radii: Float[Array, " m"]) -> Float[Array, " n"]:
    """(1) for every point, as 0 or 1."""
    covered = lambda row: (_squared_distances(row, centres) <= squared_radii).any()  # noqa: E731
    return jax.lax.map(covered, points, batch_size=_ROWS).astype(centres.dtype)


def precision_recall(data: Features, samples: Other, *, k: int = 3) -> PrecisionRecall:
    """Precision (2) and recall (3); time grows with n m, memory with n + m.

    Args:
        data: features of data `[n, d]`.
        samples: features of samples `[m, d]`; both sets of one size where numbers are to be compared.
        k: which neighbour bounds a ball, at least 1.

    Returns:
        Precision and recall in [0, 1], with standard errors.

    Raises:
        ValueError: if k is below 1 or a set has no k-th neighbour.
    """
    if not 1 <= k < min(data.shape[0], samples.shape[0]):
        raise ValueError(
            f"k must be at least 1 and below the number of examples, got {k} for {data.shape[0]} and {samples.shape[0]}"
        )
    precision = _inside(samples, data, _squared_radii(data, k))
    recall = _inside(data, samples, _squared_radii(samples, k))
    return PrecisionRecall(mean_with_error(precision), mean_with_error(recall))
