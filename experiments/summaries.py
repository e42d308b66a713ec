"""What a report says of a run, read from its directory: no model is built and no parameter read."""

import base64
import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import checkpoints, configs, grids, integrity, metrics_log, runs
from experiments.data import Dataset
from experiments.errors import UserError

__all__ = ["Figure", "Summary", "data_figure", "read"]

_MOST_TEXTS = 12
_GRID = re.compile(r"step(?P<step>\d+)_seed(?P<seed>\d+)_num(?P<num>\d+)(?P<more>.*)")


class Figure(NamedTuple):
    """A picture with its caption; `uri` holds the whole PNG."""

    uri: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Summary:
    """A run as the report sees it.

    Attributes:
        name: what the run is called on the page.
        directory: the run directory.
        config_name: MODEL_DATA.
        about: first line of the config's docstring.
        fields: the config's fields.
        changed: names of fields that differ from the config's defaults.
        environment: environment.json, or empty.
        evaluation: evaluation.json, or empty.
        metrics: lines of metrics.jsonl.
        steps: steps that have a checkpoint.
        num_params: number of parameters, or `None`.
        grids: PNGs of the latest sampled step, the one with most samples first.
        texts: the same of samples that are texts.
    """

    name: str
    directory: Path
    config_name: str
    about: str
    fields: dict[str, Any]
    changed: frozenset[str]
    environment: dict[str, Any]
    evaluation: dict[str, Any]
    metrics: list[dict[str, Any]]
    steps: list[int]
    num_params: int | None
    grids: list[Path]
    texts: list[Path] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Time in training steps."""
        return sum(record.get("seconds") or 0 for record in self.metrics)

    @property
    def train_command(self) -> str:
        """The command that trains it again."""
        command = ["python", "-m", "experiments.train", self.config_name]
        for name in sorted(self.changed):
            value = self.fields[name]
            values = map(str, value) if isinstance(value, list | tuple) else [str(value)]
            command += [f"--{name.replace('_', '-')}", *values]
        return shlex.join([*command, "--workdir", str(self.directory)])

    @property
    def evaluate_command(self) -> str:
        """The command that measures it again."""
        flags = self.evaluation.get("flags", {})
        given = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        return shlex.join(["python", "-m", "experiments.evaluate", str(self.directory), *given])


def read(directory: str) -> Summary:
    """Reads a run directory.

    Raises:
        UserError: if it is none, has no checkpoint, or a file of it cannot be read.
    """
    path = Path(directory)
    record = _config(path)
    steps = checkpoints.steps(path)
    if not steps:
        raise UserError(f"{directory} has no checkpoint yet: train it first")
    module = configs.load(record["config"])
    defaults = {field.name: field.default for field in dataclasses.fields(module.Config)}
    changed = {name for name, value in record["fields"].items() if _differs(value, defaults.get(name))}
    return Summary(
        name=path.resolve().name,
        directory=path,
        config_name=record["config"],
        about=(module.__doc__ or "").split("\n")[0],
        fields=record["fields"],
        changed=frozenset(changed),
        environment=_optional(path / "environment.json"),
        evaluation=_optional(path / "evaluation.json"),
        metrics=metrics_log.read_metrics(path),
        steps=steps,
        num_params=_num_params(path, steps[-1]),
        grids=_latest(path / "samples", "png"),
        texts=_latest(path / "samples", "txt"),
    )


def _config(path: Path) -> dict[str, Any]:
    if not (path / "config.json").exists():
        raise UserError(f"{path} is not a run directory: it has no config.json")
    record = _optional(path / "config.json")
    if not {"config", "fields"} <= record.keys():
        raise UserError(f"{path / 'config.json'} does not name a config and its fields")
    return record


def _optional(path: Path) -> dict[str, Any]:
    try:
        record = runs.read_json(path) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise UserError(f"{path} should hold a JSON object")
    return record


def _differs(value: Any, default: Any) -> bool:
    return value != (list(default) if isinstance(default, tuple) else default)


def _num_params(path: Path, step: int) -> int | None:
    """Counts parameters by the shapes noted beside the checkpoint."""
    try:
        leaves = runs.read_json(integrity.root(path) / str(step) / "meta.json")["leaves"]
        return sum(int(np.prod(shape)) for leaf, (_, shape, *_) in leaves.items() if leaf.startswith(".params"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _latest(folder: Path, ending: str) -> list[Path]:
    found = [(match, path) for path in folder.glob(f"*.{ending}") if (match := _GRID.fullmatch(path.stem))]
    latest = max((int(match["step"]) for match, _ in found), default=0)
    chosen = [(match["more"] != "", -int(match["num"]), path) for match, path in found if int(match["step"]) == latest]
    return [path for *_, path in sorted(chosen)]


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def sample_figure(path: Path) -> Figure:
    """A grid of samples, with what its name says."""
    return Figure(_uri(path.read_bytes()), _said(path))


def _said(path: Path) -> str:
    match = _GRID.fullmatch(path.stem)
    assert match is not None
    more = match["more"].replace("_class", ", class ").replace("_source", ", of own sources")
    more = more.replace("_from-data", ", each after the example its chain began at")
    more = more.replace("_prompt", ", all from one prompt on")
    more = re.sub(r"_complete(\d+)", r", each a test example and completions of its first \1 rows", more)
    return f"{match['num']} samples, step {int(match['step'])}, seed {match['seed']}{more}"


def sample_text(path: Path) -> tuple[str, str]:
    """The first texts of a file of samples, and what its name says."""
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    more = f"the first {_MOST_TEXTS} of " if len(blocks) > _MOST_TEXTS else ""
    return "\n\n".join(blocks[:_MOST_TEXTS]), more + _said(path)


def data_figure(summary: Summary, dataset: Dataset) -> Figure | None:
    """Test examples laid out like the first grid of samples, or `None` if they cannot be drawn."""
    x, labels = dataset.test
    if not grids.can_be_drawn(dataset.seen(x[:1])[0]):
        return None
    match = _GRID.fullmatch(summary.grids[0].stem) if summary.grids else None
    num, columns = min(int(match["num"]) if match else 64, len(x)), None
    rows = np.random.default_rng(0).permutation(len(x))
    if labels is not None and summary.fields.get("conditional"):
        columns = dataset.columns
        rows = _by_label(rows, labels if dataset.sounds is None else dataset.sounds.digits(labels), num, columns)
    seen, num_levels = dataset.seen(x[rows[:num]])
    png = grids.picture(seen, num_levels=num_levels, columns=columns, limits=grids.plane_limits(x))
    return Figure(_uri(png), f"{num} test examples of {dataset.name}")


def _by_label(rows: np.ndarray, labels: np.ndarray, num: int, classes: int) -> np.ndarray:
    """Rows whose labels go 0, 1, ..., classes - 1 over and over."""
    queues = {label: list(rows[labels[rows] == label]) for label in range(classes)}
    wanted = [queues[index % classes] for index in range(num)]
    return np.array([queue.pop() for queue in wanted if queue])
