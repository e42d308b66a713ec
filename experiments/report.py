"""Writes one self-contained HTML page about a run, or about several side by side.

    python -m experiments.report DIR [DIR ...] [--output FILE]

Samples, data, curves, numbers with their protocol, config, environment and the commands that make them again.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import cli, grids, runs, summaries
from experiments.errors import UserError
from experiments.summaries import Figure, Summary

__all__ = ["main"]

PROG = "python -m experiments.report"

_NUM_COLOURS = 6
_NOT_CURVES = {"step", "time", "seconds", "valid_loss"}
_MORE_GRIDS = 6


class Cell(NamedTuple):
    """A number of one run: text, its error, the training data's number, and whether no run is better."""

    value: str
    error: str
    floor: str
    best: bool


class Line(NamedTuple):
    """A quantity under one protocol: a cell for each run, or `None`."""

    name: str
    unit: str
    how: str
    protocol: str
    better: str
    cells: list[Cell | None]


class Chart(NamedTuple):
    """An SVG and what its curves are: `(colour, name, dashed)`."""

    svg: str
    legend: list[tuple[str, str, bool]]


def parser() -> cli.Parser:
    """The flags."""
    parser = cli.Parser(PROG, description="Writes one self-contained HTML page about a run, or several side by side.")
    parser.add_argument("directories", metavar="DIR", nargs="+", help="run directories; several are compared")
    parser.add_argument("--output", default=None, metavar="FILE", help="default: report.html in the first DIR")
    return parser


def _number(row: dict[str, Any], field: str) -> float:
    value = row.get(field)
    return float("nan") if value is None else float(value)


def _not_worse(row: dict[str, Any], others: Sequence[dict[str, Any]]) -> bool:
    """Whether no other number is better by more than twice the standard error of the difference."""
    sign = {"higher": 1, "lower": -1}.get(row.get("better", ""), 0)
    value, error = _number(row, "value"), _number(row, "error")
    if sign == 0 or len(others) < 2 or not math.isfinite(value):
        return False
    leads = [(sign * (_number(other, "value") - value), _number(other, "error")) for other in others]
    return not any(lead > 2 * math.hypot(error, other) for lead, other in leads if math.isfinite(lead))


def _cell(row: dict[str, Any], others: Sequence[dict[str, Any]]) -> Cell:
    from experiments.evaluate import format_estimate

    value, error = format_estimate(_number(row, "value"), _number(row, "error"))
    has_floor = row.get("floor") is not None
    floor = format_estimate(_number(row, "floor"), _number(row, "floor_error"))[0] if has_floor else ""
    return Cell(value.replace("-", "−"), error, floor.replace("-", "−"), _not_worse(row, others))


def compare(evaluations: Sequence[dict[str, Any]]) -> list[Line]:
    """One line for each quantity under one protocol: only such numbers stand beside each other.

    Args:
        evaluations: evaluation.json of each run, or an empty dictionary.

    Returns:
        The lines, equal quantities together, in the order in which they first appear.
    """
    tables = [{_key(row): row for row in evaluation.get("rows", [])} for evaluation in evaluations]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    names = list(dict.fromkeys(name for name, *_ in keys))
    lines = []
    for key in sorted(keys, key=lambda key: names.index(key[0])):
        there = [table[key] for table in tables if key in table]
        cells = [_cell(table[key], there) if key in table else None for table in tables]
        row = there[0]
        lines.append(Line(row["name"], row["unit"], row["how"], row["protocol"], row.get("better", ""), cells))
    return lines


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["name"], row["unit"], row["protocol"]


def _curve(summary: Summary, name: str) -> grids.Curve:
    points = [(record["step"], record[name]) for record in summary.metrics if record.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _colour(index: int) -> str:
    return f"var(--c{index % _NUM_COLOURS})"


def charts(found: Sequence[Summary]) -> list[Chart]:
    """The loss on both parts first, then everything else that was logged; runs share a chart."""
    made = [_loss_chart(found)]
    logged = dict.fromkeys(name for summary in found for record in summary.metrics for name in record)
    for name in (name for name in logged if name not in _NOT_CURVES | {"loss"}):
        entries = [(_colour(i), s.name, False, curve) for i, s in enumerate(found) if (curve := _curve(s, name))[0]]
        made.append(_chart(name.replace("_", " "), entries, many=len(found) > 1))
    return [chart for chart in made if chart.svg]


def _loss_chart(found: Sequence[Summary]) -> Chart:
    many, entries = len(found) > 1, []
    for index, summary in enumerate(found):
        prefix = f"{summary.name}, " if many else ""
        entries.append((_colour(index), f"{prefix}training", False, _curve(summary, "loss")))
        valid = _colour(index if many else 1)
        entries.append((valid, f"{prefix}validation", True, _curve(summary, "valid_loss")))
    return _chart("loss", [entry for entry in entries if entry[3][0]], many=True)


def _chart(title: str, entries: Sequence[tuple[str, str, bool, grids.Curve]], *, many: bool) -> Chart:
    if not entries:
        return Chart("", [])
    names = [f"{index} {name}" for index, (_, name, _, _) in enumerate(entries)]
    svg = grids.curves_svg(
        {name: entry[3] for name, entry in zip(names, entries, strict=True)},
        colours={name: entry[0] for name, entry in zip(names, entries, strict=True)},
        dashed=frozenset(name for name, entry in zip(names, entries, strict=True) if entry[2]),
        title=title,
    )
    return Chart(svg, [(colour, name, dashed) for colour, name, dashed, _ in entries] if many else [])


def _data(summary: Summary) -> tuple[Figure | None, str]:
    """A figure of data, and the data's protocol; a warning if the data is not on this machine."""
    from experiments import data

    try:
        dataset = data.load(summary.fields["data"])
    except UserError as error:
        print(f"warning: no examples of the data in the report: {error}", file=sys.stderr)
        return None, ""
    return summaries.data_figure(summary, dataset), dataset.protocol


def _run_view(summary: Summary, index: int) -> dict[str, Any]:
    """What the template needs of a run."""
    figure, protocol = _data(summary)
    pictures = [summaries.sample_figure(path) for path in summary.grids[: 1 + _MORE_GRIDS]]
    return {
        "summary": summary,
        "colour": _colour(index),
        "samples": pictures[0] if pictures else None,
        "more": pictures[1:],
        "texts": summaries.sample_text(summary.texts[0]) if summary.texts else None,
        "data": figure,
        "data_protocol": protocol,
        "facts": _facts(summary),
    }


def _facts(summary: Summary) -> list[tuple[str, str]]:
    batch = summary.fields.get("batch_size")
    minutes = summary.seconds / 60
    facts = [("data", str(summary.fields.get("data"))), ("steps", f"{summary.steps[-1]:,}"), ("batch", str(batch))]
    facts += [("parameters", f"{summary.num_params:,}")] if summary.num_params is not None else []
    facts += [("training", f"{minutes:.1f} min" if minutes >= 1 else f"{summary.seconds:.0f} s")]
    return [*facts, ("on", summary.environment.get("hardware", "unknown hardware"))]


def _measured(found: Sequence[Summary]) -> list[str]:
    """One sentence for each run: at which step and on what its numbers were measured."""
    sentences = []
    for summary in (summary for summary in found if summary.evaluation):
        step, examples = summary.evaluation.get("step"), summary.evaluation.get("examples")
        late = "" if step == summary.steps[-1] else f" (its newest checkpoint is step {summary.steps[-1]})"
        subject = f"{summary.name} was measured" if len(found) > 1 else "Measured"
        sentences.append(f"{subject} at step {step}{late} on {examples}.")
    return sentences


def _union(tables: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any], bool]]:
    """Name, the value in each table, and whether they differ."""
    names = list(dict.fromkeys(name for table in tables for name in table))
    lines = [(name, [_shown(table.get(name, "")) for table in tables]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in lines]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value)


def render(found: Sequence[Summary]) -> str:
    """The page."""
    import jinja2

    loader = jinja2.PackageLoader("experiments", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    views = [_run_view(summary, index) for index, summary in enumerate(found)]
    return environment.get_template("report.html.j2").render(
        title=found[0].name if len(found) == 1 else f"{len(found)} runs",
        runs=views,
        lines=compare([summary.evaluation for summary in found]),
        measured=_measured(found),
        charts=charts(found),
        fields=_union([summary.fields for summary in found]),
        environments=_union([summary.environment for summary in found]),
        changed=lambda name, differ: differ if len(found) > 1 else name in found[0].changed,
        differs=lambda name, differ: differ,
    )


def main(argv: Sequence[str]) -> int:
    """Writes the page and prints where it is.

    Raises:
        UserError: for bad input.
    """
    args = parser().parse(argv)
    found = [summaries.read(directory) for directory in dict.fromkeys(args.directories)]
    path = Path(args.output) if args.output else found[0].directory / "report.html"
    page = render(_distinct(found))
    try:
        runs.write_text(path, page)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    print(path)
    return 0


def _distinct(found: Sequence[Summary]) -> list[Summary]:
    """Runs whose directories end alike are called by their whole path."""
    import dataclasses

    names = [summary.name for summary in found]
    return [dataclasses.replace(s, name=str(s.directory)) if names.count(s.name) > 1 else s for s in found]


if __name__ == "__main__":
    cli.run(main, PROG)
