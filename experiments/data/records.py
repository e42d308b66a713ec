"""What a data set is: three parts of arrays in memory, and the protocol that made them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.errors import UserError

__all__ = ["Dataset", "Split", "Texts", "hold_out"]


class Split(NamedTuple):
    """One part of a data set.

    Attributes:
        x: data `[n, ...]`: `uint8 [n, height, width, channels]` with values 0 .. num_levels - 1 for images, `float32`
            for real-valued data, integers `[n, t]` for texts.
        cond: labels `int32 [n]`, sources of translations `int32 [n, s]`, or `None`.
    """

    x: np.ndarray
    cond: np.ndarray | None = None


class Texts(NamedTuple):
    """How data that are texts are written and read.

    Attributes:
        write: `x [n, t] -> n strings`.
        write_source: the same for `cond`, where the texts are translations.
        read_sources: `n strings -> cond [n, s]`; a `UserError` for a string that cannot be one.
    """

    write: Callable[[np.ndarray], list[str]]
    write_source: Callable[[np.ndarray], list[str]] | None = None
    read_sources: Callable[[Sequence[str]], np.ndarray] | None = None


class Dataset(NamedTuple):
    """A data set in memory.

    Attributes:
        name: the name it is loaded by.
        train: examples to train on. Always legal data of `num_levels` levels, also where `dynamic` replaces it.
        valid: examples to choose by.
        test: examples to report.
        num_levels: number of values of an element, 0 for real numbers.
        num_classes: number of labels, or of tokens of sources; 0 where there are none.
        protocol: one line that says which rows are which part, how they were binarised and from which files.
        dynamic: `(rng, rows) -> x`: the rows of the training part as they look at this visit (dynamic binarisation), or
            `None` where they always look like `train.x[rows]`.
        texts: how they are written, where they are texts.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    num_levels: int
    num_classes: int
    protocol: str
    dynamic: Callable[[np.random.Generator, np.ndarray], np.ndarray] | None = None
    texts: Texts | None = None


def hold_out(split: Split, num: int) -> tuple[Split, Split]:
    """Parts the last `num` rows from the others: `(others, last rows)`.

    Raises:
        UserError: if that leaves no row on either side.
    """
    rows = len(split.x)
    if not 0 < num < rows:
        raise UserError(f"cannot hold out {num} of {rows} rows: expected more than 0 and fewer than all")
    cut = rows - num
    first, last = (None, None) if split.cond is None else (split.cond[:cut], split.cond[cut:])
    return Split(split.x[:cut], first), Split(split.x[cut:], last)
