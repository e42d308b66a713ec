"""Texts as characters: windows of one long text.

Source: the file `input.txt` of https://github.com/karpathy/char-rnn, data/tinyshakespeare, and the split and windows of
https://github.com/karpathy/nanoGPT, data/shakespeare_char.
"""

from functools import partial

import numpy as np

from experiments.data.folder import read
from experiments.data.records import Dataset, Split, Texts
from experiments.errors import UserError

__all__ = ["CONTEXT", "levels", "shakespeare", "spelled"]

CONTEXT = 64
"""Characters before each predicted one, at most; a window holds one more."""


def _characters(content: bytes) -> np.ndarray:
    """The characters that there are, in the order of their codes."""
    return np.unique(np.frombuffer(content, np.uint8))


def _windows(text: np.ndarray, starts: np.ndarray, context: int) -> np.ndarray:
    return text[starts[:, None] + np.arange(context + 1)]


def spelled(x: np.ndarray, characters: np.ndarray) -> list[str]:
    """Windows `[n, t]` as strings; `characters` are the codes of the levels."""
    return [characters[row].astype(np.uint8).tobytes().decode("latin-1") for row in x]


def levels(string: str, characters: np.ndarray) -> np.ndarray:
    """The levels `uint8 [t]` of a string, what `spelled` undoes.

    Raises:
        UserError: if it has a character that is not one of them.
    """
    codes = np.array([ord(character) for character in string], np.int64)
    if (unknown := ~np.isin(codes, characters)).any():
        raise UserError(f"the data has no character {string[unknown.argmax()]!r}, got {string[:60]!r}")
    return np.searchsorted(characters, codes).astype(np.uint8)


def shakespeare(name: str, context: int) -> Dataset:
    """Loads tiny Shakespeare as windows of characters, of which each but the first is predicted from those before.

    Args:
        name: of the data set.
        context: characters before each predicted one, at most; a window holds one more.

    Raises:
        UserError: if the file is missing.
    """
    file = read(name, "tinyshakespeare/input.txt")
    characters = _characters(file.content)
    text = np.searchsorted(characters, np.frombuffer(file.content, np.uint8)).astype(np.uint8)
    cut = len(text) * 9 // 10
    train, rest = text[:cut], text[cut:]
    parts = [Split(_windows(part, np.arange(0, len(part) - context, context), context)) for part in (train, rest)]
    return Dataset(
        name,
        parts[0],
        parts[1],
        parts[1],
        num_levels=len(characters),
        num_classes=0,
        protocol=f"tiny Shakespeare, characters; train = first nine tenths, at every visit windows of "
        f"{context + 1} from anywhere in it; valid and test = the last tenth, windows that share one character; "
        f"{file.stamp}",
        dynamic=lambda rng, rows: _windows(train, rng.integers(0, len(train) - context, len(rows)), context),
        texts=Texts(write=lambda x: spelled(x, characters), read=partial(levels, characters=characters)),
    )
