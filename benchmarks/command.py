"""What the benchmark commands share: flags, a process for each config, JSON lines and a table."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import cli, configs
from experiments.errors import UserError

__all__ = ["run"]

Rows = list[dict[str, Any]]


def _parser(kind: str) -> cli.Parser:
    parser = cli.Parser(f"python -m benchmarks.{kind}")
    parser.add_argument("configs", nargs="*", help="configs, by default all that end in _mnist")
    parser.add_argument("--repeats", type=int, default=7, help="blocks that are timed, of which the median counts")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a block, at least")
    parser.add_argument("--size", type=int, default=None, help="examples or samples per call, by default the config's")
    parser.add_argument("--parallel", default=None, help="jit, pmap or mesh, by default as in training")
    parser.add_argument("--json", default=None, help="file that also gets the JSON lines")
    return parser


def _check(args: Any) -> None:
    for name in ("repeats", "seconds"):
        if getattr(args, name) <= 0:
            raise UserError(f"--{name} must be above 0, got {getattr(args, name)}")
    if args.size is not None and args.size < 1:
        raise UserError(f"--size must be at least 1, got {args.size}")
    for name in args.configs:
        configs.load(name)


def _measure(kind: str, config_name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The worker's result, or its last line on stderr under `error`."""
    command = [sys.executable, "-m", "benchmarks.worker", kind, config_name, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"benchmark": kind, "config": config_name, "error": lines[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if value < 1000 else f"{value:.0f}"


def _cells(row: dict[str, Any]) -> list[str]:
    plain = row["plain"] or {}
    memory = row["peak_host_mib"], row["peak_device_mib"]
    values = row["size"], row["per_second"], row["per_second"] * row["size"], row["compile_seconds"], *memory
    return [
        row["config"],
        *map(_number, values),
        _number(plain.get("per_second")),
        _number(row["tuned_over_plain"]),
        row["data"],
    ]


def table(rows: Rows) -> str:
    """The results, aligned, under a line on the hardware; failures below."""
    unit = "steps/s" if rows[0]["benchmark"] == "train_step" else "draws/s"
    head = f"config,size,{unit},examples/s,compile s,host MiB,device MiB,plain {unit},ratio,data".split(",")
    good = [row for row in rows if "error" not in row]
    cells = [head, *map(_cells, good)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    if good:
        environment = good[0]["environment"]
        versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
        lines = [environment["hardware"], versions, f"options: {environment['compiler_options'] or 'none'}", *lines]
    return "\n".join([*lines, *(f"{row['config']}: {row['error']}" for row in rows if "error" in row)])


def run(kind: str, argv: Sequence[str]) -> int:
    """Measures every config in a process of its own; prints a JSON line for each, then the table.

    Args:
        kind: "train_step" or "sample".
        argv: arguments of the command.

    Returns:
        The exit code: 1 if a config failed.

    Raises:
        UserError: if an argument is wrong.
    """
    args = _parser(kind).parse(argv)
    _check(args)
    options = {name: getattr(args, name) for name in ("repeats", "seconds", "size", "parallel")}
    rows: Rows = []
    for name in args.configs or [name for name in configs.names() if name.endswith("_mnist")]:
        rows.append(_measure(kind, name, options))
        print(json.dumps(rows[-1]), flush=True)
    if args.json:
        Path(args.json).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(table(rows))
    return int(any("error" in row for row in rows))
