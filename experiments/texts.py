"""Samples that are texts, written for people: translations with their sources and references."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.data import Dataset
from experiments.errors import UserError
from experiments.runs import Run

__all__ = ["Sources", "are_translated", "page", "sources"]


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
