"""Measures the samples of a trained run under many settings: a table here, and DIR/sweep.json and DIR/sweep.svg.

    python -m experiments.sweep DIR --over sampler=ddim,heun --over num_evaluations=5,10,20,50 [--features FILE]

Fields are those that only sampling reads, as for `--set`. Every combination is measured on the same examples with the
same seed; the last field is the abscissa of the figure.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import cli, evaluate, measures, runs
from experiments.errors import UserError
from experiments.measures import Row

__all__ = ["Point", "combinations", "figure", "main", "table"]

PROG = "python -m experiments.sweep"
COLOURS = ("#3b6fb6", "#c8553d", "#4f8a4b", "#8a5ea8", "#b8860b", "#4a4a4a")


class Point(NamedTuple):
    """One combination and what was measured there.

    Attributes:
        setting: field to value, as text.
        rows: distances between samples and data, and what else the config measures of samples.
        seconds: to draw the samples and to measure them, compilation included.
    """

    setting: dict[str, str]
    rows: list[Row]
    seconds: float


def parser() -> cli.Parser:
    """The flags: those of `evaluate`, and `--over`."""
    parser = evaluate.parser(PROG, "Measures the samples of a trained run under many settings.")
    parser.add_argument("--over", action="append", required=True, metavar="FIELD=VALUE,VALUE", help="values to go over")
    return parser


def combinations(over: Sequence[str]) -> list[dict[str, str]]:
    """Every combination of `FIELD=VALUE,VALUE,...`, the last field changing fastest.

    Raises:
        UserError: if one names no field, no value, or a field for a second time.
    """
    fields: dict[str, list[str]] = {}
    for text in over:
        name, equals, values = text.partition("=")
        listed = [value.strip() for value in values.split(",")]
        if not name or not equals or not all(listed) or name in fields:
            raise UserError(f"--over takes FIELD=VALUE,VALUE once for each field, got {text!r}")
        fields[name] = listed
    return [dict(zip(fields, chosen, strict=True)) for chosen in itertools.product(*fields.values())]


def points(args: argparse.Namespace) -> Iterator[Point]:
    """Measures one combination after another."""
    for setting in combinations(args.over):
        start = time.perf_counter()
        changes = [*args.set, *(f"{name}={value}" for name, value in setting.items())]
        chosen = evaluate.setting(argparse.Namespace(**{**vars(args), "set": changes}))
        rows = [*measures.sample_rows(chosen), *measures.own_sample_rows(chosen)]
        if not rows:
            raise UserError(f"{args.directory}: nothing is measured of the samples of this model")
        yield Point(setting, rows, time.perf_counter() - start)
        print(f"{setting}: {time.perf_counter() - start:.1f} s", file=sys.stderr)


def table(found: Sequence[Point]) -> str:
    """One line for each combination; the floor, which is that of all, first."""
    fields, names = list(found[0].setting), [row.name for row in found[0].rows]
    floors = [_estimate(row.floor, row.floor_error) for row in found[0].rows]
    cells = [[*fields, *names], ["training data", *[""] * (len(fields) - 1), *floors]]
    cells += [[*point.setting.values(), *(_estimate(row.value, row.error) for row in point.rows)] for point in found]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells)


def _estimate(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    number, spread = evaluate.format_estimate(value, error or 0.0)
    return f"{number} ± {spread}" if spread else number


def figure(found: Sequence[Point]) -> str:
    """The first distance against the last field, a curve for each combination of the others, as SVG."""
    import io

    from matplotlib.figure import Figure

    *others, last = found[0].setting
    drawn, row = Figure(figsize=(6, 4), layout="constrained"), found[0].rows[0]
    axes = drawn.add_subplot()
    named = itertools.groupby(found, lambda point: ", ".join(point.setting[name] for name in others))
    for number, (label, group) in enumerate(named):
        points = list(group)
        ticks, values = [point.setting[last] for point in points], [point.rows[0].value for point in points]
        axes.plot(ticks, values, "o-", label=label or row.name, color=COLOURS[number % len(COLOURS)])
    if row.floor is not None:
        axes.axhline(row.floor, color="#999999", lw=1, ls="--", label="training data")
    axes.set(xlabel=last, ylabel=row.name, yscale="log" if row.better == "lower" else "linear")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _record(found: Sequence[Point], args: argparse.Namespace) -> dict[str, Any]:
    from experiments import devices

    flags = {name: getattr(args, name) for name in (*evaluate.FLAGS, "over")}
    measured = [{**point._asdict(), "rows": [evaluate.plain_row(row) for row in point.rows]} for point in found]
    return {"flags": flags, "points": measured, "environment": devices.environment()}


def main(argv: Sequence[str]) -> int:
    """Measures every combination, prints the table and writes the two files.

    Raises:
        UserError: for bad input.
    """
    args = parser().parse(argv)
    combinations(args.over)
    from experiments import devices

    devices.setup()
    found = list(points(args))
    print(table(found))
    print(found[0].rows[0].protocol)
    directory = Path(args.directory)
    runs.write_json(directory / "sweep.json", _record(found, args))
    runs.write_text(directory / "sweep.svg", figure(found))
    print(directory / "sweep.json")
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
