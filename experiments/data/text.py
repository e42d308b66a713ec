"""Texts as characters: windows of one long text.

Source: the file `input.txt` of https://github.com/karpathy/char-rnn, data/tinyshakespeare, and the split and windows of
https://github.com/karpathy/nanoGPT, data/shakespeare_char.
"""

import numpy as np

from experiments.data.folder import read
from experiments.data.records import Dataset, Split

__all__ = ["CONTEXT", "shakespeare", "spelled"]

CONTEXT = 64
"""Characters before each predicted one, at most; a window holds one more."""


def _characters(content: bytes) -> np.ndarray:
    """The characters that there are, in the order of their codes."""
    return np.unique(np.frombuffer(content, np.uint8))


def _windows(text: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return text[starts[:, None] + np.arange(CONTEXT + 1)]


def spelled(x: np.ndarray, characters: np.ndarray) -> list[str]:
    """Windows `[n, t]` as strings; `characters` are the codes of the levels."""
    return [characters[row].astype(np.uint8).tobytes().decode("latin-1") for row in x]


def shakespeare() -> Dataset:
    """Loads `shakespeare`: windows of 65 characters, of which each but the first is predicted from those before.

    Raises:
        UserError: if the file is missing.
    """
    file = read("shakespeare", "tinyshakespeare/input.txt")
    levels = np.searchsorted(_characters(file.content), np.frombuffer(file.content, np.uint8)).astype(np.uint8)
    cut = len(levels) * 9 // 10
    train, rest = levels[:cut], levels[cut:]
    parts = [Split(_windows(part, np.arange(0, len(part) - CONTEXT, CONTEXT))) for part in (train, rest)]
    return Dataset(
        "shakespeare",
        parts[0],
        parts[1],
        parts[1],
        num_levels=int(levels.max()) + 1,
        num_classes=0,
        protocol=f"tiny Shakespeare, characters; train = first nine tenths, at every visit windows of "
        f"{CONTEXT + 1} from anywhere in it; valid and test = the last tenth, windows that share one character; "
        f"{file.stamp}",
        dynamic=lambda rng, rows: _windows(train, rng.integers(0, len(train) - CONTEXT, len(rows))),
    )
