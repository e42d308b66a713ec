"""CIFAR-10 in its binary form: records of a label and 32x32 pixels, red, then green, then blue.

Source: Learning Multiple Layers of Features from Tiny Images, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import numpy as np

from experiments.data import folder
from experiments.data.records import Dataset, Split, hold_out
from experiments.errors import UserError

__all__ = ["colour"]

_FOLDER, _SIDE, _NUM_CLASSES, _NUM_VALID = "cifar-10-batches-bin", 32, 10, 1000
_RECORD = 1 + 3 * _SIDE**2
_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST = ("test_batch.bin", "test_batch_first1000.bin")


def _parse(file: folder.File) -> Split:
    records = np.frombuffer(file.content, np.uint8)
    if records.size == 0 or records.size % _RECORD:
        raise UserError(f"{file.path} is damaged: {records.size} bytes are not whole records of {_RECORD}")
    records = records.reshape(-1, _RECORD)
    labels = records[:, 0]
    if labels.max() >= _NUM_CLASSES:
        raise UserError(f"{file.path}: expected labels below {_NUM_CLASSES}, got {labels.max()}")
    planes = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE)
    return Split(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int32))


def colour() -> Dataset:
    """Loads `cifar10`, of as many of the five training files as are there; the protocol names them.

    Raises:
        UserError: if no training file or no test file is there, or one is damaged.
    """
    there = [name for name in _TRAIN if folder.has(f"{_FOLDER}/{name}")] or _TRAIN[:1]
    tested = next((name for name in _TEST if folder.has(f"{_FOLDER}/{name}")), _TEST[0])
    files = [folder.read("cifar10", f"{_FOLDER}/{name}") for name in (*there, tested)]
    *parts, test = (_parse(file) for file in files)
    joined = Split(*(np.concatenate([getattr(part, field) for part in parts]) for field in Split._fields))
    train, valid = hold_out(joined, min(_NUM_VALID, len(joined.x) // 10))
    protocol = (
        f"levels 0..255 of three colours; train = first {len(train.x)} rows of {len(there)} of the 5 training files, "
        f"valid = their last {len(valid.x)}, test = the {len(test.x)} of {tested}; "
        f"{', '.join(file.stamp for file in files)}"
    )
    return Dataset("cifar10", train, valid, test, num_levels=256, num_classes=_NUM_CLASSES, protocol=protocol)
