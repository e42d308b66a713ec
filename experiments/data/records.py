"""What a data set is: three parts of arrays in memory, and the protocol that made them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.errors import UserError

__all__ = ["Buckets", "Dataset", "Sounds", "Split", "Texts", "hold_out"]


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
        read: `string -> x [t]` of as many elements as the string takes; a `UserError` for one that cannot be read.
    """

    write: Callable[[np.ndarray], list[str]]
    write_source: Callable[[np.ndarray], list[str]] | None = None
    read_sources: Callable[[Sequence[str]], np.ndarray] | None = None
    read: Callable[[str], np.ndarray] | None = None


class Sounds(NamedTuple):
    """How data that are sounds are seen, heard and asked for.

    Attributes:
        view: `x -> images uint8 [n, height, width, channels]` of 256 levels: spectrograms, by which they are compared.
        save: `(folder, x, labels or None) -> paths`: writes them as files.
        digits: `cond -> int [n]`: which of ten words they are.
        conditions: `labels -> cond` of samples that have these labels, `None` where they are conditioned on labels.
    """

    view: Callable[[np.ndarray], np.ndarray]
    save: Callable[[Path, np.ndarray, np.ndarray | None], list[Path]]
    digits: Callable[[np.ndarray], np.ndarray]
    conditions: Callable[[np.ndarray], np.ndarray] | None = None


class Buckets(NamedTuple):
    """How rows that are filled up are brought together with others of like length, in batches that are cut.

    Attributes:
        lengths: of the training rows, `int [n]`, those of `x` and `cond` without what fills them up.
        widths: to which batches may be cut, rising; few, since each is compiled once.
    """

    lengths: np.ndarray
    widths: tuple[int, ...]


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
        buckets: lengths of the training rows, where batches are to be of like lengths and cut.
        sounds: how they are seen and heard, where they are sounds.
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
    buckets: Buckets | None = None
    sounds: Sounds | None = None

    @property
    def columns(self) -> int:
        """Pictures in a row that come by class: one for each class, and for each of the ten words of sounds."""
        return self.num_classes if self.sounds is None else 10

    def seen(self, x: np.ndarray) -> tuple[np.ndarray, int]:
        """What there is to see of examples, and the number of its levels."""
        return (x, self.num_levels) if self.sounds is None else (self.sounds.view(x), 256)


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
