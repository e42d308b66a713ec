"""MNIST and Fashion-MNIST (idx .gz files, the four standard names), and MNIST under one fixed binarisation (text).

Sources: Gradient-Based Learning Applied to Document Recognition, https://doi.org/10.1109/5.726791; Fashion-MNIST,
https://arxiv.org/abs/1708.07747; The Neural Autoregressive Distribution Estimator (static binarisation),
https://proceedings.mlr.press/v15/larochelle11a.html.
"""

import numpy as np

from experiments.data.folder import File, read_gz
from experiments.data.idx import parse
from experiments.data.records import Dataset, Split, hold_out
from experiments.errors import UserError

__all__ = ["grey", "static"]

_NUM_VALID, _SIDE, _NUM_CLASSES = 10000, 28, 10
_LINE = 2 * _SIDE * _SIDE
_FILES = {"mnist": "mnist", "fashion_mnist": "fashion-mnist"}


def _part(name: str, folder: str, prefix: str) -> tuple[Split, str]:
    """One labelled part, and the stamps of its two files."""
    images = read_gz(name, f"{folder}/{prefix}-images-idx3-ubyte.gz")
    labels = read_gz(name, f"{folder}/{prefix}-labels-idx1-ubyte.gz")
    x, y = parse(images, 3), parse(labels, 1)
    if x.shape[1:] != (_SIDE, _SIDE):
        raise UserError(f"{images.path}: expected images of {_SIDE}x{_SIDE}, got {x.shape[1]}x{x.shape[2]}")
    if len(x) != len(y):
        raise UserError(f"{labels.path}: {len(y)} labels for the {len(x)} images of {images.path.name}")
    if y.max(initial=0) >= _NUM_CLASSES:
        raise UserError(f"{labels.path}: expected labels below {_NUM_CLASSES}, got {y.max()}")
    return Split(x[..., None], y.astype(np.int32)), f"{images.stamp}, {labels.stamp}"


def grey(name: str) -> Dataset:
    """Loads `mnist` or `fashion_mnist`, grey levels 0..255.

    Raises:
        UserError: if a file is missing or damaged.
    """
    folder = _FILES[name]
    (train, train_stamp), (test, test_stamp) = _part(name, folder, "train"), _part(name, folder, "t10k")
    train, valid = hold_out(train, _NUM_VALID)
    protocol = (
        f"grey levels 0..255; train = first {len(train.x)} rows of the train files, valid = their last {_NUM_VALID}, "
        f"test = the t10k files; {train_stamp}, {test_stamp}"
    )
    return Dataset(name, train, valid, test, num_levels=256, num_classes=_NUM_CLASSES, protocol=protocol)


def _bits(file: File) -> np.ndarray:
    """Parses lines of 784 digits 0 or 1 parted by blanks, without looking at single lines."""
    characters = np.frombuffer(file.content, np.uint8)
    if characters.size == 0 or characters.size % _LINE:
        raise UserError(f"{file.path} is damaged: {characters.size} bytes are not whole lines of {_LINE}")
    pairs = characters.reshape(-1, _SIDE * _SIDE, 2)
    digits, gaps = pairs[..., 0] - np.uint8(ord("0")), pairs[..., 1]
    if digits.max() > 1 or np.any(gaps[:, :-1] != ord(" ")) or np.any(gaps[:, -1] != ord("\n")):
        raise UserError(f"{file.path} is damaged: expected lines of {_SIDE * _SIDE} digits 0 or 1 parted by blanks")
    return digits.reshape(-1, _SIDE, _SIDE, 1)


def static() -> Dataset:
    """Loads `mnist_static`: bits, without labels.

    Raises:
        UserError: if a file is missing or damaged.
    """
    parts = ("train", "valid", "test")
    files = [read_gz("mnist_static", f"binarized-mnist/binarized_mnist_{part}.amat.gz") for part in parts]
    train, valid, test = (Split(_bits(file)) for file in files)
    protocol = f"fixed stochastic binarisation, the three files as they are; {', '.join(file.stamp for file in files)}"
    return Dataset("mnist_static", train, valid, test, num_levels=2, num_classes=0, protocol=protocol)
