"""Tables of numbers: UCI's reals, standardised, and the bits of the density estimation benchmark (DEBD).

The protocol of the reals follows RNADE, but for the number of folds: the column that holds the class is left out, so
are columns of nothing but integers and, of every two columns whose correlation exceeds 0.98 in magnitude, the later
one; the rows are shuffled, a tenth of them is for testing and a tenth of the others for validation; every column is
shifted and scaled to mean 0 and variance 1 on the training part. Likelihoods are of these standardised columns.

Sources: RNADE: The real-valued neural autoregressive density-estimator, https://arxiv.org/abs/1306.0186; The Neural
Autoregressive Distribution Estimator, https://proceedings.mlr.press/v15/larochelle11a.html (the bits).
"""

import io
from typing import NamedTuple

import numpy as np

from experiments.data.folder import File, read
from experiments.data.records import Dataset, Split, hold_out
from experiments.errors import UserError

__all__ = ["BITS", "REALS", "bits", "reals"]

_MAX_CORRELATION, _SEED = 0.98, 0


class Table(NamedTuple):
    """How a file of reals is written.

    Attributes:
        path: in the data folder.
        what: one line for the help.
        delimiter: between columns.
        num_headers: lines before the first row.
        num_left_out: columns at the right that are no measurement (the class).
    """

    path: str
    what: str
    delimiter: str = ","
    num_headers: int = 0
    num_left_out: int = 1


REALS = {
    "wine_red": Table("uci/winequality-red.csv", "measurements of red wines", ";", 1),
    "wine_white": Table("uci/winequality-white.csv", "measurements of white wines", ";", 1),
    "magic": Table("uci/magic04.data", "shapes of showers in a gamma-ray telescope"),
    "parkinsons": Table("uci/parkinsons_updrs.data", "measurements of voices", ",", 1, 0),
    "ionosphere": Table("uci/ionosphere.csv", "radar returns"),
}

BITS = {"nltcs": 16, "plants": 69, "mushrooms": 112, "dna": 180}
"""Names in DEBD, and their numbers of bits."""


def _parse(file: File, table: Table) -> np.ndarray:
    """All columns but those at the right, as float64 `[n, d]`."""
    lines = file.content.decode("latin-1").splitlines()[table.num_headers :]
    wide = len(lines[0].split(table.delimiter)) if lines else 0
    columns = range(wide - table.num_left_out)
    try:
        x = np.loadtxt(lines, delimiter=table.delimiter, usecols=columns, ndmin=2)
    except ValueError as error:
        raise UserError(f"{file.path} is damaged: {error}") from error
    if x.size == 0 or not np.isfinite(x).all():
        raise UserError(f"{file.path} is damaged: expected rows of finite numbers, got {x.shape[0]} of {x.shape[1]}")
    return x


def _measurements(x: np.ndarray) -> np.ndarray:
    """Columns that are not all integers, without the later one of every two that are nearly the same."""
    x = x[:, (x != np.rint(x)).any(0)]
    same = np.abs(np.corrcoef(x, rowvar=False)) > _MAX_CORRELATION
    kept: list[int] = []
    for column in range(x.shape[1]):
        if not same[column, kept].any():
            kept.append(column)
    return x[:, kept]


def reals(name: str) -> Dataset:
    """Loads one of `REALS`, standardised.

    Raises:
        UserError: if the file is missing or damaged.
    """
    table = REALS[name]
    file = read(f"uci_{name}", table.path)
    x = _measurements(_parse(file, table))
    x = x[np.random.default_rng(_SEED).permutation(len(x))]
    rest, test = hold_out(Split(x), len(x) // 10)
    train, valid = hold_out(rest, len(rest.x) // 10)
    mean, scale = train.x.mean(0), train.x.std(0)
    train, valid, test = (Split(((part.x - mean) / scale).astype(np.float32)) for part in (train, valid, test))
    protocol = (
        f"{x.shape[1]} measurements, standardised by the training part; without the class, columns of integers and "
        f"the later of two correlated above {_MAX_CORRELATION}; rows shuffled with seed {_SEED}, then {len(train.x)} "
        f"train, {len(valid.x)} valid, {len(test.x)} test; {file.stamp}"
    )
    return Dataset(f"uci_{name}", train, valid, test, num_levels=0, num_classes=0, protocol=protocol)


def _bits(file: File, width: int) -> np.ndarray:
    """Rows of `width` digits 0 or 1 parted by commas, as `uint8 [n, width]`."""
    try:
        x = np.loadtxt(io.BytesIO(file.content), delimiter=",", dtype=np.uint8, ndmin=2)
    except ValueError as error:
        raise UserError(f"{file.path} is damaged: {error}") from error
    if x.size == 0 or x.shape[1] != width or x.max() > 1:
        raise UserError(f"{file.path} is damaged: expected rows of {width} digits 0 or 1, got {x.shape[1]} columns")
    return x


def bits(name: str) -> Dataset:
    """Loads one of `BITS`, in the three parts as they are published.

    Raises:
        UserError: if a file is missing or damaged.
    """
    files = [read(f"debd_{name}", f"debd/{name}/{name}.{part}.data") for part in ("train", "valid", "test")]
    train, valid, test = (Split(_bits(file, BITS[name])) for file in files)
    protocol = f"{BITS[name]} bits, the three files as they are; {', '.join(file.stamp for file in files)}"
    return Dataset(f"debd_{name}", train, valid, test, num_levels=2, num_classes=0, protocol=protocol)
