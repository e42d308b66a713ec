"""Measures a trained run: a table here, and DIR/evaluation.json.

    python -m experiments.evaluate DIR [--num 1000] [--split test] [--importance-samples 100] [--parts likelihood]

Every number comes with its uncertainty and its protocol; what a model does not define is not in the table.
"""

import argparse
import math
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments import cli, features, measures, runs, trained
from experiments.data import Split
from experiments.errors import UserError
from experiments.measures import Row, Setting

__all__ = ["FLAGS", "format_estimate", "main", "parser", "plain_row", "setting", "table"]

PROG = "python -m experiments.evaluate"
FLAGS = ("num", "split", "importance_samples", "seed", "checkpoint", "features", "set")
SPLITS = ("train", "valid", "test")
PARTS_HELP = "what to measure, 'likelihood' or 'samples against data', say, in a file of its own; all by default"


def parser(
    prog: str = PROG, description: str = "Measures a trained run: a table here, and DIR/evaluation.json."
) -> cli.Parser:
    """The flags, which other commands that measure share."""
    parser = cli.Parser(prog, description=description)
    parser.add_argument("directory", metavar="DIR", help="run directory that experiments.train made")
    parser.add_argument("--num", default="1000", metavar="NUM", help="examples and samples, drawn at random; or all")
    parser.add_argument("--split", default="test", choices=SPLITS, help="part of the data")
    parser.add_argument("--importance-samples", type=int, default=100, help="k of the importance-weighted bound")
    parser.add_argument(
        "--features", metavar="FILE", help="measure samples in this classifier's features, not in PCA's"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of examples and of all noise")
    parser.add_argument("--checkpoint", default="newest", metavar="WHICH", help=trained.CHECKPOINT_HELP)
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help=trained.SET_HELP)
    parser.add_argument("--parallel", choices=("jit", "pmap", "mesh"), help=trained.PARALLEL_HELP)
    return parser


def _number(text: str, most: int) -> int:
    if text != "all" and not text.isdigit():
        raise UserError(f"--num must be a number or all, got {text!r}")
    num = most if text == "all" else min(int(text), most)
    if num < measures.MIN_EXAMPLES:
        raise UserError(f"--num must be at least {measures.MIN_EXAMPLES}, got {num}")
    return num


def setting(args: argparse.Namespace) -> Setting:
    """Opens the run and chooses the examples."""
    from experiments import devices

    model = trained.open_trained(args.directory, args.checkpoint, args.set)
    dataset = model.run.dataset
    split = getattr(dataset, args.split)
    num = _number(args.num, min(len(split.x), len(dataset.train.x)))
    rows = np.random.default_rng(args.seed).permutation(len(split.x))[:num]
    cond = split.cond[rows] if trained.conditional(model.run) else None
    which = f"all {num}" if num == len(split.x) else f"{num} of {len(split.x)}"
    which += f" {args.split} examples" + ("" if num == len(split.x) else f" drawn with seed {args.seed}")
    return Setting(
        model=model,
        placement=devices.placement(args.parallel),
        examples=Split(split.x[rows], cond),
        which=which,
        seed=args.seed,
        importance_samples=args.importance_samples,
        options=devices.compiler_options(),
        space=features.of_classifier(args.features, dataset) if args.features else None,
        split=args.split,
    )


def rows(chosen: Setting, names: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of some parts, or of all, as they are measured; what is being measured is said on stderr.

    Raises:
        UserError: if there is no such part.
    """
    own = chosen.model.run.experiment.evaluations
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "likelihood": partial(measures.likelihood_rows, chosen),
        **{name: partial(measures.own_rows, chosen, name, own[name]) for name in own},
        "reconstruction": partial(measures.reconstruction_rows, chosen),
        "samples against data": partial(measures.sample_rows, chosen),
    }
    if unknown := [name for name in names if name not in parts]:
        raise UserError(f"--parts must be of {', '.join(map(repr, parts))}, got {unknown[0]!r}")
    for name in names or parts:
        start = time.perf_counter()
        yield from parts[name]()
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)


def format_estimate(value: float, error: float) -> tuple[str, str]:
    """Writes a value and its error with as many digits as the error (its first two) warrants."""
    if not (math.isfinite(error) and math.isfinite(value)) or error == 0:
        return f"{value:.4g}", "" if error == 0 else f"{error:.2g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    if digits > 6:
        return f"{value:.3g}", f"{error:.2g}"
    return f"{value:.{digits}f}", f"{error:.{digits}f}"


def _cells(row: Row) -> list[str]:
    value, error = format_estimate(row.value, row.error)
    floor = "" if row.floor is None else format_estimate(row.floor, row.floor_error or 0)[0]
    return [row.name, f"{value} ± {error}" if error else value, floor, row.unit, row.how]


def table(found: Sequence[Row], *, width: int) -> str:
    """Lays rows out in aligned columns, the protocol wrapped in the last one.

    Args:
        found: the rows.
        width: columns of the terminal.

    Returns:
        Lines of text.
    """
    cells = [["quantity", "value", "training data", "unit", "protocol"], *map(_cells, found)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    room = max(30, width - sum(widths) - 8)
    lines = []
    for name, value, floor, unit, how in cells:
        first, *rest = textwrap.wrap(how, room)
        lines.append(f"{name:<{widths[0]}}  {value:>{widths[1]}}  {floor:>{widths[2]}}  {unit:<{widths[3]}}  {first}")
        lines += [" " * (sum(widths) + 8) + line for line in rest]
    lines.insert(1, "-" * min(width, sum(widths) + 8 + room))
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """JSON has no infinities: they are written as text, which `float` reads."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def plain_row(row: Row) -> dict[str, Any]:
    """A row as JSON takes it."""
    return {name: _plain(value) for name, value in row._asdict().items()}


def _record(chosen: Setting, found: Sequence[Row], args: argparse.Namespace) -> dict[str, Any]:
    from experiments import devices

    flags = {name: getattr(args, name) for name in (*FLAGS, "parts")}
    return {
        "config": chosen.model.run.config_name,
        "data": chosen.model.run.config.data,
        "step": chosen.model.step,
        "examples": chosen.which,
        "flags": flags,
        "rows": [plain_row(row) for row in found],
        "environment": devices.environment(),
    }


def main(argv: Sequence[str]) -> int:
    """Evaluates, prints the table and writes evaluation.json.

    Raises:
        UserError: for bad input.
    """
    flags = parser()
    flags.add_argument("--parts", nargs="+", default=[], metavar="PART", help=PARTS_HELP)
    args = flags.parse(argv)
    if args.importance_samples < 1 or args.seed < 0:
        given = f"{args.importance_samples} and {args.seed}"
        raise UserError(f"--importance-samples must be at least 1 and --seed at least 0, got {given}")
    from experiments import devices

    devices.setup()
    chosen = setting(args)
    found = list(rows(chosen, args.parts))
    run = chosen.model.run
    print(f"{run.config_name}, step {chosen.model.step}, {chosen.which}")
    print(table(found, width=shutil.get_terminal_size((160, 40)).columns))
    for shared in dict.fromkeys(row.shared for row in found if row.shared):
        print(f"samples against data: {shared}")
    print(f"data: {run.dataset.protocol}")
    stems = [*trained.stems(args.set), *(part.replace(" ", "-") for part in args.parts)]
    path = Path(run.directory) / ("_".join(["evaluation", *stems]) + ".json")
    runs.write_json(path, _record(chosen, found, args))
    print(path)
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
