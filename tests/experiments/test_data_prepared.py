"""Data sets of tensorflow-datasets, packed and read without TensorFlow."""

import importlib.util
import shutil

import chex
import numpy as np
import pytest

from experiments import data
from experiments.data import pack, prepared
from experiments.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder with the digits in it."""
    folder = tmp_path_factory.mktemp("prepared")
    assert pack.main(["digits", "--data-dir", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def folder(packed, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(packed))
    return packed


def _small(num_classes: int = 3, channels: int = 3) -> data.Dataset:
    """Colour images with a grey level in every corner of the range."""
    x = np.random.default_rng(0).integers(0, 256, (12, 4, 6, channels), dtype=np.uint8)
    cond = np.arange(12, dtype=np.int32) % num_classes if num_classes else None
    split = data.Split(x, cond)
    return data.Dataset("small", split, split, split, 256, num_classes, "made here")


def test_packed_digits_come_back_bit_for_bit():
    """Order, labels, parts, levels and protocol, through the files alone."""
    expected, got = data.load("digits"), data.load("tfds:jaxgen_digits")
    chex.assert_trees_all_equal(got[1:4], expected[1:4])
    chex.assert_trees_all_equal_dtypes(got[1:4], expected[1:4])
    assert (got.num_levels, got.num_classes) == (17, 10)
    assert got.protocol == f"jaxgen_digits/1.0.0: {expected.protocol}"
    chex.assert_trees_all_equal(data.batch(got, 0, 5, 64), data.batch(expected, 0, 5, 64))


def test_packed_digits_are_an_ordinary_prepared_data_set(folder):
    """Oracle: tensorflow-datasets' own data source."""
    source = tfds.data_source("jaxgen_digits", split="test", data_dir=folder, download=False)
    expected = data.load("digits").test
    for row in (0, 17, 496):
        np.testing.assert_array_equal(source[row]["image"], expected.x[row])
        assert source[row]["label"] == expected.cond[row]


@pytest.mark.parametrize("num_classes", [0, 3])
def test_colour_images_with_and_without_labels(num_classes, tmp_path, monkeypatch):
    dataset = _small(num_classes)
    name = pack.pack(dataset, str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    got = data.load(name)
    assert name == "tfds:jaxgen_small"
    chex.assert_trees_all_equal(got[1:4], dataset[1:4])
    assert (got.num_levels, got.num_classes) == (256, num_classes)


def test_parts_that_are_missing_are_held_out():
    train, extra = data.Split(np.arange(72)), data.Split(np.arange(5))
    got = prepared._three({"train": train}, "x")
    assert [len(part.x) for part in got] == [50, 10, 12]
    np.testing.assert_array_equal(np.concatenate([part.x for part in got]), train.x)
    assert [len(part.x) for part in prepared._three({"train": train, "test": extra}, "x")] == [60, 12, 5]
    assert [len(part.x) for part in prepared._three({"train": train, "val": extra, "test": extra}, "x")] == [72, 5, 5]
    with pytest.raises(UserError, match="expected a part called train, got test"):
        prepared._three({"test": extra}, "x")


def test_packing_twice_is_refused(folder, capsys):
    assert pack.main(["digits", "--data-dir", str(folder)]) == 2
    assert "error: jaxgen_digits is already in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits_binary", "drawn anew at every visit"),
        ("toy_rings", "only images can be packed"),
        ("x", "unknown data set"),
    ],
)
def test_what_cannot_be_packed(name, message, tmp_path, capsys):
    assert pack.main([name, "--data-dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow would download it")
def test_not_prepared_says_what_to_do(folder):
    with pytest.raises(
        UserError, match=rf"tfds:mnist is not prepared in {folder}: set TFDS_DATA_DIR .*'\.\[tfds\]'.*pack"
    ):
        data.load("tfds:mnist")


@pytest.mark.parametrize("name", ["no_such_data_set", "", "two words", "jaxgen_digits:7.0.0"])
def test_unknown_name_is_one_clear_line(name, folder):
    with pytest.raises(UserError, match=f"data set tfds:{name}: not in {folder}") as error:
        data.load(f"tfds:{name}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_file_is_one_clear_line(damage, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "copy"))
    (path,) = (tmp_path / "copy").rglob("*-test.array_record*")
    path.write_bytes(path.read_bytes()[:1000]) if damage == "cut" else path.unlink()
    with pytest.raises(UserError, match="data set tfds:jaxgen_digits: .*") as error:
        data.load("tfds:jaxgen_digits")
    assert "\n" not in str(error.value)


def test_download_by_name_where_tensorflow_is(folder, monkeypatch):
    """A builder that is not prepared is asked to prepare itself as array_record, and then read."""
    real, asked = tfds.builder("jaxgen_digits", data_dir=folder), []

    class NotThere:
        is_prepared = staticmethod(lambda: False)
        download_and_prepare = staticmethod(lambda: asked.append("prepare"))

        def __getattr__(self, name):
            return getattr(real, name)

    def builder(name, **options):
        asked.append((name, options.get("file_format")))
        return NotThere()

    monkeypatch.setattr(tfds, "builder", builder)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorflow")
    got = data.load("tfds:digits_of_the_net")
    assert asked == [("digits_of_the_net", None), ("digits_of_the_net", "array_record"), "prepare"]
    chex.assert_trees_all_equal(got.test, data.load("digits").test)


def test_failed_download_is_one_clear_line(monkeypatch):
    class NotThere:
        is_prepared = staticmethod(lambda: False)

        def download_and_prepare(self):
            raise ConnectionError("no route to host\nand more lines")

    monkeypatch.setattr(tfds, "builder", lambda name, **options: NotThere())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorflow")
    with pytest.raises(
        UserError, match=r"tfds:mnist: downloading it into .* failed: ConnectionError: no route to host$"
    ):
        data.load("tfds:mnist")


def test_folder_of_prepared_data_sets(tmp_path, monkeypatch):
    """TFDS_DATA_DIR, else JAXGEN_DATA/tfds where it is there, else the default of tensorflow-datasets."""
    monkeypatch.setenv("TFDS_DATA_DIR", "elsewhere")
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    assert prepared.data_dir() == "elsewhere"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert prepared.data_dir() is None
    (tmp_path / "tfds").mkdir()
    assert prepared.data_dir() == str(tmp_path / "tfds")
    monkeypatch.delenv("JAXGEN_DATA")
    assert prepared.data_dir() is None
