"""The idx format of MNIST and its relatives.

    bytes 0-1   zero
    byte 2      type of the elements; 8 is uint8
    byte 3      number of dimensions d
    4 d bytes   length of each dimension, big-endian uint32
    the rest    elements, the last dimension fastest

Source: http://yann.lecun.com/exdb/mnist/.
"""

import math

import numpy as np

from experiments.data.folder import File
from experiments.errors import UserError

__all__ = ["parse"]

_UINT8 = 8


def parse(file: File, num_dims: int) -> np.ndarray:
    """Decodes an idx file of `uint8`.

    Args:
        file: the file, uncompressed.
        num_dims: expected number of dimensions: 1 for labels, 3 for grey images.

    Returns:
        `uint8` array of the shape that the file names.

    Raises:
        UserError: if the magic number or the length is wrong.
    """
    content, header = file.content, 4 + 4 * num_dims
    magic = bytes([0, 0, _UINT8, num_dims])
    if content[:4] != magic or len(content) < header:
        raise UserError(
            f"{file.path} is not an idx file of {num_dims}-dimensional uint8: it begins with {content[:4].hex()}, "
            f"expected {magic.hex()}"
        )
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", num_dims, 4))
    if len(content) - header != math.prod(shape):
        raise UserError(
            f"{file.path} is damaged: its header says {shape}, {math.prod(shape)} bytes, but {len(content) - header} "
            "follow"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
