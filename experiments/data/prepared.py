"""Labelled images of tensorflow-datasets, read into memory without TensorFlow.

A data set that was prepared as array_record is read through tensorflow-datasets' random-access data source. One that is
not prepared is downloaded and prepared by name where TensorFlow is installed (the `tfds` extra). It is looked for in
the folder TFDS_DATA_DIR, else in JAXGEN_DATA/tfds where that is there, else in tensorflow-datasets' own default. Where
a data set has no validation part, the last sixth of its training part is held out; where it has no test part, so is
that, first.

Source: https://www.tensorflow.org/datasets/data_source.
"""

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.data.records import Dataset, Split, hold_out
from experiments.errors import UserError

__all__ = ["PREFIX", "data_dir", "import_tfds", "load", "one_line"]

PREFIX = "tfds:"
_FORMAT, _BLOCK = "array_record", 1000
_VALID_NAMES = ("validation", "valid", "val")


def data_dir() -> str | None:
    """The folder of prepared data sets, `None` for tensorflow-datasets' own default."""
    if os.environ.get("TFDS_DATA_DIR"):
        return os.environ["TFDS_DATA_DIR"]
    folder = os.path.join(os.environ.get("JAXGEN_DATA", ""), "tfds")
    return folder if os.environ.get("JAXGEN_DATA") and os.path.isdir(folder) else None


def import_tfds() -> Any:
    """Imports tensorflow-datasets, late because most runs do not need it.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import array_record  # noqa: F401
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"{PREFIX}NAME needs tensorflow-datasets and array-record: pip install -e '.[tfds]' ({error})"
        ) from error
    return tfds


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turns whatever tensorflow-datasets raises into one line that begins with `what`, and drops its warnings."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"{what}: {type(error).__name__}: {first}") from error
    finally:
        logger.setLevel(level)


def _open(name: str) -> Any:
    """The builder of a data set that is prepared by the time this returns."""
    tfds = import_tfds()
    folder = data_dir()
    where = folder or tfds.core.constants.DATA_DIR
    with one_line(f"data set {PREFIX}{name}: not in {where}, and tensorflow-datasets cannot make it"):
        builder = tfds.builder(name, data_dir=folder)
        if builder.is_prepared():
            return builder
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"data set {PREFIX}{name} is not prepared in {where}: set TFDS_DATA_DIR to the folder that holds it as "
            f"{_FORMAT}, or pip install -e '.[tfds]' (TensorFlow) to download it, or pack local files by "
            "python -m experiments.data.pack"
        )
    with one_line(f"data set {PREFIX}{name}: downloading it into {where} failed"):
        builder = tfds.builder(name, data_dir=folder, file_format=_FORMAT)
        builder.download_and_prepare()
    return builder


def _features(builder: Any, name: str) -> tuple[str, str | None]:
    """Names of the one image feature, of known shape, and of the one label if there is one."""
    tfds = import_tfds()
    features = dict(builder.info.features)
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if len(images) != 1 or None in features[images[0]].shape or features[images[0]].np_dtype != np.uint8:
        found = ", ".join(f"{key}: {type(feature).__name__}{feature.shape}" for key, feature in features.items())
        raise UserError(f"data set {PREFIX}{name}: expected one uint8 image of fixed size in an example, got {found}")
    return images[0], labels[0] if len(labels) == 1 else None


def _read(builder: Any, part: str, image: str, label: str | None) -> Split:
    """Reads one part into memory, in the order in which it is stored."""
    source = builder.as_data_source(split=part)
    x = np.empty((len(source), *builder.info.features[image].shape), np.uint8)
    cond = None if label is None else np.empty(len(source), np.int32)
    for start in range(0, len(source), _BLOCK):
        rows = range(start, min(start + _BLOCK, len(source)))
        for row, example in zip(rows, source.__getitems__(rows), strict=True):
            x[row] = example[image]
            if cond is not None:
                cond[row] = example[label]
    return Split(x, cond)


def _three(parts: dict[str, Split], name: str) -> tuple[Split, Split, Split]:
    """Training, validation and test part, held out where they are missing."""
    if "train" not in parts:
        raise UserError(f"data set {PREFIX}{name}: expected a part called train, got {', '.join(parts)}")
    train, test = parts["train"], parts.get("test")
    valid = next((parts[key] for key in _VALID_NAMES if key in parts), None)
    if test is None:
        train, test = hold_out(train, len(train.x) // 6)
    if valid is None:
        train, valid = hold_out(train, len(train.x) // 6)
    return train, valid, test


def load(name: str) -> Dataset:
    """Loads `tfds:NAME`, with NAME as tensorflow-datasets writes it (`mnist`, `mnist:3.0.1`).

    The number of levels is the one packed with the data, else 2 where every value is 0 or 1, else 256.

    Raises:
        UserError: if it is neither prepared as array_record nor can be downloaded, or an example has not just one image
            of fixed size.
    """
    short = name.removeprefix(PREFIX)
    builder = _open(short)
    image, label = _features(builder, short)
    with one_line(f"data set {name}: cannot read {builder.data_dir} as {_FORMAT}; prepare it again in that format"):
        wanted = [part for part in ("train", "test", *_VALID_NAMES) if part in builder.info.splits]
        parts = {part: _read(builder, part, image, label) for part in wanted}
    train, valid, test = _three(parts, short)
    packed = dict(builder.info.metadata or {})
    num_levels = packed.get("num_levels") or (2 if max(part.x.max() for part in parts.values()) < 2 else 256)
    protocol = packed.get("protocol", f"parts {', '.join(parts)}; what is missing is the last sixth of train")
    num_classes = builder.info.features[label].num_classes if label else 0
    return Dataset(name, train, valid, test, num_levels, num_classes, f"{builder.info.full_name}: {protocol}")
