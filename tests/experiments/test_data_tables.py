"""Tables of numbers against pandas-free readings of the same text, scikit-learn's scaler, and the published counts."""

import csv
import os

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from experiments import data
from experiments.errors import UserError

real_files = pytest.mark.skipif(not os.environ.get("JAXGEN_DATA"), reason="JAXGEN_DATA does not name the data folder")

HEADER = "a;b;double of a;count;class"


@pytest.fixture
def small_wine(tmp_path, monkeypatch):
    """200 rows: two measurements, a third that repeats the first, a count, and a class."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    rows = [[x, y, 2 * x + 1, rng.integers(9), rng.integers(3)] for x, y in zip(a, b, strict=True)]
    path = tmp_path / "uci/winequality-red.csv"
    path.parent.mkdir()
    path.write_text("\n".join([HEADER, *(";".join(map(str, row)) for row in rows)]) + "\n")
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    return path


def test_repeated_columns_counts_and_the_class_are_left_out_and_the_rest_is_standardised(small_wine):
    """The csv module reads the same file; scikit-learn scales by the training rows."""
    dataset = data.load("uci_wine_red")
    assert [len(part.x) for part in (dataset.train, dataset.valid, dataset.test)] == [162, 18, 20]
    with small_wine.open() as file:
        raw = np.array([row[:2] for row in list(csv.reader(file, delimiter=";"))[1:]], float)
    x = np.concatenate([part.x for part in (dataset.train, dataset.valid, dataset.test)])
    order = np.argsort(x[:, 0])
    scaler = StandardScaler().fit(raw[np.argsort(raw[:, 0])][np.argsort(order)][:162])
    expected = scaler.transform(raw[np.argsort(raw[:, 0])])
    np.testing.assert_allclose(x[order], expected, atol=1e-5)
    assert "2 measurements" in dataset.protocol


@pytest.mark.parametrize(
    ("line", "message"), [("1;2;x;4;5", "is damaged"), ("1;nan;3;4;5", "finite numbers"), ("1;2", "is damaged")]
)
def test_a_damaged_table_is_named(small_wine, line, message):
    small_wine.write_text(small_wine.read_text() + line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        data.load("uci_wine_red")
    assert str(small_wine) in str(caught.value)


@pytest.fixture
def small_nltcs(tmp_path, monkeypatch):
    folder = tmp_path / "debd/nltcs"
    folder.mkdir(parents=True)
    x = np.random.default_rng(0).integers(0, 2, (12, 16))
    for part, rows in zip(("train", "valid", "test"), np.split(x, [6, 9]), strict=True):
        (folder / f"nltcs.{part}.data").write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    return folder, x


def test_bits_come_as_they_are_written(small_nltcs):
    dataset = data.load("debd_nltcs")
    np.testing.assert_array_equal(np.concatenate([dataset.train.x, dataset.valid.x, dataset.test.x]), small_nltcs[1])
    assert dataset.num_levels == 2


@pytest.mark.parametrize("text", ["0,1,1\n", "0,2" + ",0" * 14 + "\n", "0,a" + ",0" * 14 + "\n"])
def test_damaged_bits_are_named(small_nltcs, text):
    (small_nltcs[0] / "nltcs.test.data").write_text(text)
    with pytest.raises(UserError, match=r"nltcs\.test\.data is damaged"):
        data.load("debd_nltcs")


@real_files
@pytest.mark.parametrize(
    ("name", "num_rows", "num_columns"),
    [("wine_red", 1599, 11), ("wine_white", 4898, 11), ("magic", 19020, 10), ("parkinsons", 5875, 14)]
    + [("ionosphere", 351, 32)],
)
def test_the_real_tables_have_the_sizes_of_the_papers(name, num_rows, num_columns):
    """Columns as in table 1 of RNADE, but for magic, which it does not have, and for Parkinsons, where it has 15."""
    dataset = data.load(f"uci_{name}")
    x = np.concatenate([dataset.train.x, dataset.valid.x, dataset.test.x])
    assert x.shape == (num_rows, num_columns)
    np.testing.assert_allclose(dataset.train.x.std(0), 1, atol=1e-4)


@real_files
@pytest.mark.parametrize(
    ("name", "counts"),
    [("nltcs", (16181, 2157, 3236)), ("plants", (17412, 2321, 3482)), ("mushrooms", (2000, 500, 5624))]
    + [("dna", (1600, 400, 1186))],
)
def test_the_real_bits_have_the_published_counts(name, counts):
    dataset = data.load(f"debd_{name}")
    assert tuple(len(part.x) for part in (dataset.train, dataset.valid, dataset.test)) == counts
