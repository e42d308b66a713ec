"""Batches as a pure function of (seed, step), so that resuming needs no state of an iterator.

With N training rows and batches of B:

    (1)  batch k holds the positions k B .. (k + 1) B - 1 of the endless sequence pi_0, pi_1, ... of permutations of the
         rows, one for each epoch, so that each example comes exactly once an epoch and a batch may span two epochs
    (2)  pi_e is drawn by a generator seeded by (seed, 0, e); the noise of batch k (dynamic binarisation) by one seeded
         by (seed, 1, k)
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from experiments.data.records import Buckets, Dataset, Split
from experiments.errors import UserError
from jaxgen.types import Batch

__all__ = ["batch", "eval_batches"]

_ORDER, _NOISE, _DEAL, _GROUP = 0, 1, 2, 16


@lru_cache(maxsize=4)
def _permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """pi_e in (2)."""
    order = np.random.default_rng((seed, _ORDER, epoch)).permutation(num_rows)
    order.flags.writeable = False
    return order


def _rows(num_rows: int, seed: int, start: int, num: int) -> np.ndarray:
    """Rows at positions `start` to `start + num - 1` of (1); `num <= num_rows`, so at most two epochs are touched."""
    epoch, start = divmod(start, num_rows)
    head = _permutation(num_rows, seed, epoch)[start : start + num]
    if len(head) == num:
        return head
    return np.concatenate([head, _permutation(num_rows, seed, epoch + 1)[: num - len(head)]])


def _dealt(lengths: np.ndarray, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Rows of batch k by (3)."""
    size = min(_GROUP, len(lengths) // batch_size)
    group, number = divmod(step, size)
    rows = _rows(len(lengths), seed, group * size * batch_size, size * batch_size)
    in_order = rows[np.argsort(lengths[rows], kind="stable")].reshape(size, batch_size)
    return in_order[np.random.default_rng((seed, _DEAL, group)).permutation(size)[number]]


def _cut(made: Batch, buckets: Buckets, rows: np.ndarray) -> Batch:
    """A batch in the smallest width that holds it."""
    longest = buckets.lengths[rows].max()
    width = next((width for width in buckets.widths if width >= longest), None)
    return Batch(made.x[:, :width], None if made.cond is None else made.cond[:, :width])


def batch(dataset: Dataset, seed: int, step: int, batch_size: int) -> Batch:
    """The training batch of a step, by (1) and (2): the same arguments always give the same bits.

    Args:
        dataset: the data set.
        seed: seed of the order and of the noise, at least 0.
        step: number of the step, from 0.
        batch_size: B, from 1 to the number of training rows.

    Returns:
        A `Batch` of numpy arrays.

    Raises:
        UserError: if an argument is out of range.
    """
    num_rows = len(dataset.train.x)
    if not 1 <= batch_size <= num_rows:
        raise UserError(f"batch size must be from 1 to the {num_rows} rows of {dataset.name}, got {batch_size}")
    if seed < 0 or step < 0:
        raise UserError(f"seed and step must be at least 0, got seed {seed} and step {step}")
    seed, step, batch_size, buckets = int(seed), int(step), int(batch_size), dataset.buckets
    if buckets is None:
        rows = _rows(num_rows, seed, step * batch_size, batch_size)
    else:
        rows = _dealt(buckets.lengths, seed, step, batch_size)
    cond = None if dataset.train.cond is None else dataset.train.cond[rows]
    if dataset.dynamic is None:
        made = Batch(dataset.train.x[rows], cond)
        return made if buckets is None else _cut(made, buckets, rows)
    return Batch(dataset.dynamic(np.random.default_rng((seed, _NOISE, step)), rows), cond)


def eval_batches(split: Split, batch_size: int) -> Iterator[Batch]:
    """Goes through a part once and in order; the last batch may be shorter.

    Raises:
        UserError: if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise UserError(f"batch size must be at least 1, got {batch_size}")
    return _in_order(split, batch_size)


def _in_order(split: Split, batch_size: int) -> Iterator[Batch]:
    for start in range(0, len(split.x), batch_size):
        rows = slice(start, start + batch_size)
        yield Batch(split.x[rows], None if split.cond is None else split.cond[rows])
