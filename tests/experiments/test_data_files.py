"""Files of the data folder: formats, damage, absence; and the real files where they are."""

import gzip
import os
import struct

import numpy as np
import pytest

from experiments import data
from experiments.data import folder, idx, mnist
from experiments.errors import UserError

real_files = pytest.mark.skipif(not os.environ.get("JAXGEN_DATA"), reason="JAXGEN_DATA does not name the data folder")


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def _write(root, name: str, content: bytes) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(gzip.compress(content, 1))


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder with MNIST's four files, of 10003 and 5 images."""
    rng = np.random.default_rng(0)
    for prefix, num in (("train", 10003), ("t10k", 5)):
        images = rng.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        _write(tmp_path, f"mnist/{prefix}-images-idx3-ubyte.gz", _idx(images))
        _write(tmp_path, f"mnist/{prefix}-labels-idx1-ubyte.gz", _idx(rng.integers(0, 10, num, dtype=np.uint8)))
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    return tmp_path


def _decode(path) -> np.ndarray:
    """An independent decoder: one struct call for each number."""
    with gzip.open(path) as file:
        _, _, _, num_dims = struct.unpack(">BBBB", file.read(4))
        shape = [struct.unpack(">I", file.read(4))[0] for _ in range(num_dims)]
        return np.array(struct.unpack(f"{np.prod(shape)}B", file.read())).reshape(shape)


def test_idx_files_against_an_independent_decoder(small_mnist):
    dataset = data.load("mnist")
    images, labels = (_decode(small_mnist / f"mnist/t10k-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
    np.testing.assert_array_equal(dataset.test.x[..., 0], images)
    np.testing.assert_array_equal(dataset.test.cond, labels)
    assert dataset.test.x.shape == (5, 28, 28, 1)
    assert [len(dataset.train.x), len(dataset.valid.x)] == [3, 10000]
    assert "first 3 rows" in dataset.protocol


def test_idx_of_uneven_dimensions():
    """Row-major order and big-endian lengths."""
    array = np.arange(300 * 2 * 3).astype(np.uint8).reshape(300, 2, 3)
    np.testing.assert_array_equal(idx.parse(folder.File("f", _idx(array), ""), 3), array)


def _records(num, seed):
    """Records of CIFAR-10 one pixel after the other, and what they hold."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (num, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, num)
    content = b"".join(
        bytes([label, *(image[row, column, c] for c in range(3) for row in range(32) for column in range(32))])
        for image, label in zip(images, labels, strict=True)
    )
    return content, images, labels


def test_records_of_cifar(tmp_path, monkeypatch):
    """Of the training files those that are there, in their order; the last tenth of them is held out."""
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    where = tmp_path / "cifar-10-batches-bin"
    where.mkdir()
    written = {name: _records(20, i) for i, name in enumerate(["data_batch_2", "data_batch_1", "test_batch_first1000"])}
    for name, (content, _, _) in written.items():
        (where / f"{name}.bin").write_bytes(content)
    found = data.load("cifar10")
    images, labels = (np.concatenate([written[f"data_batch_{i}"][field] for i in (1, 2)]) for field in (1, 2))
    for part, rows in ((found.train, slice(36)), (found.valid, slice(36, 40))):
        np.testing.assert_array_equal(part.x, images[rows])
        np.testing.assert_array_equal(part.cond, labels[rows])
    np.testing.assert_array_equal(found.test.x, written["test_batch_first1000"][1])
    assert "first 36 rows of 2 of the 5 training files" in found.protocol
    for content, message in ((b"\0" * 3072, "3072 bytes are not whole records of 3073"), (b"\x0a" * 3073, "got 10")):
        (where / "data_batch_2.bin").write_bytes(content)
        with pytest.raises(UserError, match=message):
            data.load("cifar10")
    (where / "test_batch_first1000.bin").unlink()
    (where / "data_batch_2.bin").unlink()
    with pytest.raises(UserError, match="test_batch.bin is not there"):
        data.load("cifar10")


@real_files
def test_the_real_cifar():
    """Means of the colours that are published for the training part, 0.4914, 0.4822 and 0.4465, to half a percent."""
    found = data.load("cifar10")
    assert found.train.x.shape[1:] == (32, 32, 3)
    np.testing.assert_allclose(found.train.x.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], rtol=5e-3)
    assert set(np.bincount(found.train.cond, minlength=10) > 2000) == {True}


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist_binary", "mnist_static"])
def test_no_folder_is_one_clear_line(name, monkeypatch):
    monkeypatch.delenv("JAXGEN_DATA", raising=False)
    with pytest.raises(
        UserError, match=r"set the environment variable JAXGEN_DATA to the folder that holds [\w-]*mnist/.*gz"
    ):
        data.load(name)


@pytest.mark.parametrize("name", ["mnist_threshold", "fashion_mnist", "mnist_static"])
def test_missing_file_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=rf"{tmp_path}/[\w-]*mnist/.*gz is not there; put .* into {tmp_path}"):
        data.load(name)


@pytest.mark.parametrize("keep", [0, 5, 100, -9, -1])
def test_file_cut_short(small_mnist, keep):
    path = small_mnist / "mnist/train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=f"{path}.*") as error:
        data.load("mnist")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("position", [0, 300, -6, -2])
def test_file_with_a_flipped_byte(small_mnist, position):
    """Oracle: gzip's own CRC and length, in its last eight bytes."""
    path = small_mnist / "mnist/t10k-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[position] ^= 0x55
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=f"cannot read {path}"):
        data.load("mnist")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3", _idx(np.zeros((5, 28), np.uint8)), "begins with 00000802, expected 00000803"),
        ("train-images-idx3", b"\x00\x00\x0d\x03" + bytes(12), "begins with 00000d03, expected 00000803"),
        ("train-images-idx3", b"<html>", "begins with 3c68746d, expected 00000803"),
        (
            "train-images-idx3",
            _idx(np.zeros((5, 28, 28), np.uint8))[:-1],
            r"\(5, 28, 28\), 3920 bytes, but 3919 follow",
        ),
        ("train-images-idx3", _idx(np.zeros((10003, 8, 8), np.uint8)), "expected images of 28x28, got 8x8"),
        ("train-labels-idx1", _idx(np.zeros(10002, np.uint8)), "10002 labels for the 10003 images"),
        ("train-labels-idx1", _idx(np.full(10003, 10, np.uint8)), "expected labels below 10, got 10"),
    ],
)
def test_wrong_content_is_named(small_mnist, name, content, message):
    _write(small_mnist, f"mnist/{name}-ubyte.gz", content)
    with pytest.raises(UserError, match=f"mnist/{name}-ubyte.gz.*{message}"):
        data.load("mnist")


def test_too_few_rows_to_hold_out(small_mnist):
    for what, array in (("images-idx3", np.zeros((5, 28, 28), np.uint8)), ("labels-idx1", np.zeros(5, np.uint8))):
        _write(small_mnist, f"mnist/train-{what}-ubyte.gz", _idx(array))
    with pytest.raises(UserError, match="cannot hold out 10000 of 5 rows"):
        data.load("mnist")


def test_static_text_against_numpys_reader(tmp_path, monkeypatch):
    """Oracle: numpy.loadtxt."""
    bits = np.random.default_rng(0).integers(0, 2, (3, 7, 784))
    for part, rows in zip(("train", "valid", "test"), bits, strict=True):
        text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
        _write(tmp_path, f"binarized-mnist/binarized_mnist_{part}.amat.gz", text.encode())
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    dataset = data.load("mnist_static")
    for part in ("train", "valid", "test"):
        expected = np.loadtxt(tmp_path / f"binarized-mnist/binarized_mnist_{part}.amat.gz")
        np.testing.assert_array_equal(getattr(dataset, part).x.reshape(7, 784), expected)
    assert dataset.train.cond is None
    assert (dataset.num_levels, dataset.num_classes) == (2, 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "0 bytes are not whole lines"),
        (b"0 " * 784, "expected lines of 784 digits"),
        (b"0 " * 783 + b"2\n", "expected lines of 784 digits"),
        (b"0 " * 782 + b"0,0\n", "expected lines of 784 digits"),
        (b"0 " * 783 + b"0", "1567 bytes are not whole lines"),
    ],
)
def test_static_text_damaged(line, message):
    with pytest.raises(UserError, match=f"f is damaged: .*{message}"):
        mnist._bits(folder.File("f", line, ""))


@real_files
@pytest.mark.parametrize(
    ("name", "train_counts", "test_counts"),
    [
        (
            "mnist",
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        ),
        ("fashion_mnist", [6000] * 10, [1000] * 10),
    ],
)
def test_real_label_counts(name, train_counts, test_counts):
    """Oracle: the published counts of both data sets."""
    dataset = data.load(name)
    assert [part.x.shape for part in dataset[1:4]] == [(50000, 28, 28, 1), (10000, 28, 28, 1), (10000, 28, 28, 1)]
    both = np.concatenate([dataset.train.cond, dataset.valid.cond])
    assert np.bincount(both).tolist() == train_counts
    assert np.bincount(dataset.test.cond).tolist() == test_counts


@real_files
def test_real_mnist_is_the_published_file():
    """Oracle: the published sha256 of the training images, and the label of the well-known first digit."""
    dataset = data.load("mnist")
    assert "train-images-idx3-ubyte.gz sha256 440fcabf73cc" in dataset.protocol
    assert dataset.train.cond[:5].tolist() == [5, 0, 4, 1, 9]


@real_files
def test_real_static_mnist():
    """Oracle: the known sizes and mean bits of the three files."""
    dataset = data.load("mnist_static")
    assert [len(part.x) for part in dataset[1:4]] == [50000, 10000, 10000]
    assert [round(float(part.x.mean()), 5) for part in dataset[1:4]] == [0.13056, 0.13113, 0.13251]


@real_files
def test_real_dynamic_mnist_means():
    """Oracle: the mean and variance of the number of ones in one epoch, by the grey levels."""
    grey, dynamic = data.load("mnist"), data.load("mnist_binary")
    ones = sum(int(data.batch(dynamic, 0, step, 1000).x.sum()) for step in range(50))
    p, counts = np.arange(256) / 255, np.bincount(grey.train.x.ravel(), minlength=256)
    assert abs(ones - counts @ p) < 5 * np.sqrt(counts @ (p * (1 - p)))
    np.testing.assert_array_equal(data.load("mnist_threshold").test.x, grey.test.x > 127)
