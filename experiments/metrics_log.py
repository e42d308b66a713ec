"""The numbers of a run, as they come: metrics.jsonl and TensorBoard's event file."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from experiments.runs import write_text

__all__ = ["MetricsLog", "read_metrics"]


def read_metrics(directory: str | Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl; a last line that was cut off by a crash is left out.

    Returns:
        One dictionary a line, with `step` and `loss` at least (`valid_loss` where a checkpoint was due); empty if
        there is no such file. Numbers that were not finite are `None`.
    """
    path = Path(directory) / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [record for record in map(_parsed, lines) if record is not None]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "step" in record else None


class MetricsLog:
    """Writes metrics.jsonl and TensorBoard's event file; use it in a `with` statement."""

    def __init__(self, directory: Path, step: int) -> None:
        """Opens the log of a run that stands at `step`, and forgets what was logged after it."""
        from tensorboardX import SummaryWriter

        kept = [record for record in read_metrics(directory) if record["step"] <= step]
        path = directory / "metrics.jsonl"
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = open(path, "a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1, flush_secs=10)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs numbers at a step."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **finite, "time": round(time.time(), 3)}) + "\n")
        self._file.flush()
        for name, value in finite.items():
            if value is not None:
                self._tensorboard.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        """Is ready once it is made."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes both files."""
        self._file.close()
        self._tensorboard.close()
