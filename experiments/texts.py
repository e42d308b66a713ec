"""Samples that are texts, written for people: translations with their sources and references, and other texts."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.data import Dataset
from experiments.errors import UserError
from experiments.runs import Run

__all__ = ["Sources", "are_translated", "page", "plain_page", "prompt", "sources"]


class Sources(NamedTuple):
    """What is translated.

    Attributes:
        cond: sources, `int32 [n, s]`.
        references: translations of the data, where the sources are from there.
    """

    cond: np.ndarray
    references: np.ndarray | None = None


def are_translated(run: Run) -> bool:
    """Whether the model is of texts given a source."""
    dataset = run.dataset
    return bool(run.config.conditional and dataset.texts is not None and dataset.texts.read_sources is not None)


def sources(run: Run, num: int, given: Sequence[str] | None) -> Sources:
    """Sources that were given, or those of the test part from its first on, over and over.

    Raises:
        UserError: if some are given to a model that translates nothing, or one cannot be read.
    """
    if not are_translated(run):
        raise UserError(f"--source: {run.config_name} on {run.dataset.name} translates nothing")
    if given:
        return Sources(run.dataset.texts.read_sources(list(given)))
    rows = np.arange(num) % len(run.dataset.test.x)
    return Sources(run.dataset.test.cond[rows], run.dataset.test.x[rows])


def prompt(run: Run, string: str) -> np.ndarray:
    """A text that samples begin with, `[1, t]`.

    Raises:
        UserError: if the data is not read from texts as they stand, or this one cannot be read.
    """
    if run.dataset.texts is None or run.dataset.texts.read is None:
        raise UserError(f"--prompt: {run.dataset.name} is not of texts that samples could begin with")
    return run.dataset.texts.read(string)[None]


def plain_page(dataset: Dataset, x: np.ndarray) -> str:
    """Texts, every line of them indented, so that an empty line tells one from the next."""
    assert dataset.texts is not None
    return "".join(f"{textwrap.indent(text, '  ', lambda line: True)}\n\n" for text in dataset.texts.write(x))


def page(dataset: Dataset, x: np.ndarray, sources: Sources) -> str:
    """Source, ours and reference of every sample, with an empty line after each."""
    texts = dataset.texts
    assert texts is not None
    assert texts.write_source is not None
    columns = {"source": texts.write_source(sources.cond), "ours": texts.write(x)}
    if sources.references is not None:
        columns["reference"] = texts.write(sources.references)
    blocks = [
        "\n".join(f"{name}: {line}" for name, line in zip(columns, lines, strict=True))
        for lines in zip(*columns.values(), strict=True)
    ]
    return "".join(f"{block}\n\n" for block in blocks)
