"""What every data set must obey before anything is built from it: the last check at the door."""

import numpy as np

from experiments.data.records import Dataset, Split
from experiments.errors import UserError

__all__ = ["checked"]


def checked(dataset: Dataset) -> Dataset:
    """The data set, unchanged, if its numbers are finite and its levels and labels are those that it claims to have.

    Inside a compiled step a NaN or a label out of range cannot raise any more.

    Raises:
        UserError: naming the part, the first row and the value that is not legal, or the column that does not vary.
    """
    for part in ("train", "valid", "test"):
        _check_split(f"data set {dataset.name}, {part} part", getattr(dataset, part), dataset)
    if not dataset.num_levels and dataset.train.x.ndim == 2:
        _check_spread(f"data set {dataset.name}, train part", dataset.train.x)
    return dataset


def _check_spread(what: str, x: np.ndarray) -> None:
    """A column that does not vary has no density, and no scale normalises it."""
    constant = np.flatnonzero(np.ptp(x, axis=0) == 0)
    if constant.size:
        column = constant[0]
        raise UserError(f"{what}: column {column} must vary, and all of its {len(x)} values are {x[0, column]:g}")


def _check_split(what: str, split: Split, dataset: Dataset) -> None:
    if dataset.num_levels:
        _check_range(f"{what}: levels", split.x, dataset.num_levels)
    elif not np.isfinite(split.x).all():
        rows = np.flatnonzero(~np.isfinite(split.x.reshape(len(split.x), -1)).all(1))
        raise UserError(f"{what}: {len(rows)} of {len(split.x)} rows hold NaN or infinity, the first is row {rows[0]}")
    if split.cond is None:
        return
    if len(split.cond) != len(split.x):
        raise UserError(f"{what}: {len(split.cond)} labels for {len(split.x)} rows")
    _check_range(f"{what}: {'labels' if split.cond.ndim == 1 else 'sources'}", split.cond, dataset.num_classes)


def _check_range(what: str, values: np.ndarray, num: int) -> None:
    if not np.issubdtype(values.dtype, np.integer):
        raise UserError(f"{what} must be integers from 0 to {num - 1}, got values of type {values.dtype}")
    if values.size == 0 or (values.min() >= 0 and values.max() < num):
        return
    rows = values.reshape(len(values), -1)
    row = np.flatnonzero(((rows < 0) | (rows >= num)).any(1))[0]
    wrong = rows[row][(rows[row] < 0) | (rows[row] >= num)][0]
    raise UserError(f"{what} must be from 0 to {num - 1}, got {wrong} in row {row}")
