"""The folder of data files that the environment variable JAXGEN_DATA names."""

import gzip
import hashlib
import os
import zlib
from pathlib import Path
from typing import NamedTuple

from experiments.errors import UserError

__all__ = ["File", "has", "read", "read_gz"]

_NO_FILES_NEEDED = "(--data digits needs no files)"


class File(NamedTuple):
    """A file that was read.

    Attributes:
        path: where it lies.
        content: its uncompressed bytes.
        stamp: its name and the beginning of the sha256 of the file as it lies there.
    """

    path: Path
    content: bytes
    stamp: str


def _find(dataset: str, relative: str) -> Path:
    root = os.environ.get("JAXGEN_DATA", "")
    if not root:
        raise UserError(
            f"data set {dataset}: set the environment variable JAXGEN_DATA to the folder that holds {relative} "
            f"{_NO_FILES_NEEDED}"
        )
    path = Path(root) / relative
    if not path.is_file():
        raise UserError(
            f"data set {dataset}: {path} is not there; put {path.name} into {path.parent} or set JAXGEN_DATA to the "
            f"folder that holds {relative} {_NO_FILES_NEEDED}"
        )
    return path


def has(relative: str) -> bool:
    """Whether the data folder is named and holds a file."""
    root = os.environ.get("JAXGEN_DATA", "")
    return bool(root) and (Path(root) / relative).is_file()


def _stamp(path: Path, content: bytes) -> str:
    return f"{path.name} sha256 {hashlib.sha256(content).hexdigest()[:12]}"


def read(dataset: str, relative: str) -> File:
    """Reads a file of the data folder as it is.

    Args:
        dataset: name of the data set, for messages.
        relative: path of the file in the folder.

    Returns:
        The `File`.

    Raises:
        UserError: if JAXGEN_DATA is not set, or the file is missing or unreadable.
    """
    path = _find(dataset, relative)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"data set {dataset}: cannot read {path}: {error}; get a fresh copy of this file") from error
    return File(path, content, _stamp(path, content))


def read_gz(dataset: str, relative: str) -> File:
    """Reads a gzipped file of the data folder; gzip's own checksum is verified.

    Args:
        dataset: name of the data set, for messages.
        relative: path of the file in the folder.

    Returns:
        The `File`.

    Raises:
        UserError: if JAXGEN_DATA is not set, or the file is missing, unreadable, cut short or damaged.
    """
    path = _find(dataset, relative)
    try:
        packed = path.read_bytes()
        content = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"data set {dataset}: cannot read {path}: {error}; get a fresh copy of this file") from error
    return File(path, content, _stamp(path, packed))
