r"""Speed of flows against flowjax, zuko and normflows: the same layers in all of them, in turns.

    python -m benchmarks.flows --peer flowjax=PYTHON [--peer zuko=PYTHON] [--peer normflows=PYTHON] [--batch 256]
                               [--draws 1000] [--repeats 7] [--seconds 1] [--cases affine_2,affine_64,...]

PYTHON is the interpreter of an environment with that library; each peer is a process of its own. Measured are a train
step of Adam on -ln p of a batch, and draws. Layers are couplings of halves whose conditioners have two hidden layers of
64, and reorder what they are given; elements go through an affine map or a rational-quadratic spline of 8 bins. The
numbers of parameters must agree (flowjax's splines have two more numbers for each element: slopes at both ends).
"""

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax

from benchmarks.measure import Measured, compare, ratio
from benchmarks.own import training
from benchmarks.peering import check_positive, named, num_threads, peer
from experiments import cli, devices
from experiments.errors import UserError
from jaxgen.bijections import coupling_layers, flow, rational_quadratic_spline, scale_shift
from jaxgen.core import Model
from jaxgen.nets.mlp import MLP
from jaxgen.types import Batch

PROG = "python -m benchmarks.flows"
MODULES = {"flowjax": "peer_flowjax", "zuko": "peer_flows", "normflows": "peer_flows"}
WORKS = ("train", "sample")
WIDTH, BOUND = 64, 5.0


class Case(NamedTuple):
    """Sizes of a flow; 0 bins are an affine map."""

    num_dims: int
    num_layers: int
    num_bins: int


CASES = {
    "affine_2": Case(2, 8, 0),
    "affine_64": Case(64, 8, 0),
    "spline_2": Case(2, 4, 8),
    "spline_64": Case(64, 4, 8),
}


def parser() -> cli.Parser:
    """The flags."""
    parser = cli.Parser(PROG, description="Speed of flows against other libraries, in turns.")
    parser.add_argument(
        "--peer",
        action="append",
        required=True,
        metavar="NAME=PYTHON",
        help=f"a library, of {', '.join(MODULES)}, and an interpreter that has it; may be repeated",
    )
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}, with commas between")
    parser.add_argument("--batch", type=int, default=256, help="examples in a train step")
    parser.add_argument("--draws", type=int, default=1000, help="samples in a draw")
    parser.add_argument("--repeats", type=int, default=7, help="blocks that are timed, of which the median counts")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a block, at least")
    parser.add_argument("--json", default=None, help="file that also gets the result")
    return parser


def model(case: Case) -> Model:
    """The flow as it is here."""
    elementwise = rational_quadratic_spline(case.num_bins, bound=BOUND) if case.num_bins else scale_shift()
    net = lambda num_outputs: MLP((WIDTH, WIDTH), num_outputs, zero_init=True)  # noqa: E731
    return flow(coupling_layers(case.num_dims, net, elementwise, num_layers=case.num_layers), (case.num_dims,))


def ours(case: Case, batch: int, draws: int) -> tuple[int, dict[str, Callable[[], Any]]]:
    """Number of parameters, and the two kinds of work."""
    key, own, placement = jax.random.key(0), model(case), devices.placement("jit")
    data = Batch(jax.random.normal(key, (batch, case.num_dims)))
    train, params = training(placement, own, optax.adam(1e-3), data)
    draw = placement.sample(own)
    works = {"train": train, "sample": lambda: draw(params, key, draws)}
    return sum(leaf.size for leaf in jax.tree.leaves(params)), works


def peers_named(texts: Sequence[str]) -> dict[str, str]:
    """Library to interpreter, from NAME=PYTHON.

    Raises:
        UserError: if a library is unknown, or there is no interpreter.
    """
    found = {}
    for text in texts:
        name, _, python = text.partition("=")
        if name not in MODULES or not python:
            raise UserError(f"--peer must be NAME=PYTHON with a name of {', '.join(MODULES)}, got {text!r}")
        found[name] = python
    return found


def check_params(name: str, counts: dict[str, int]) -> None:
    """Checks that all have as many parameters as ours, but for a tenth.

    Raises:
        UserError: if one differs by more.
    """
    for library, count in counts.items():
        if abs(count - counts["jaxgen"]) > counts["jaxgen"] / 10:
            raise UserError(f"{name}: {library} has {count} parameters, and {counts['jaxgen']} are expected")


def table(found: dict[str, dict[str, Measured]], units: dict[str, str] | None = None) -> str:
    """Of every row: rates, and ours over each peer's.

    Args:
        found: row to library to what was measured, ours among them as `jaxgen`.
        units: row to a note in the last column.
    """
    names = list(next(iter(found.values())))
    head = f"{'':22}" + "".join(f"{name + '/s':>14}" for name in names)
    lines = [head + "".join(f"{'/' + name:>12}" for name in names[1:])]
    for row, measured in found.items():
        rates = "".join(f"{each.rate:14.4g}" for each in measured.values())
        ratios = "".join(f"{ratio(measured['jaxgen'], measured[name]):12.2f}" for name in names[1:])
        lines.append(f"{row:22}{rates}{ratios}   {(units or {}).get(row, '')}".rstrip())
    return "\n".join(lines)


def _measure(args: Any, peers: dict[str, str], cases: dict[str, Case]) -> tuple[Any, dict[str, Any], dict[str, str]]:
    """What was measured, numbers of parameters, and versions."""
    sizes = {"cases": cases, "batch": args.batch, "draws": args.draws, "threads": num_threads()}
    sizes |= {"width": WIDTH, "bound": BOUND}
    kinds = [f"{name} {work}" for name in cases for work in WORKS]
    found: dict[str, dict[str, Measured]] = {}
    counts: dict[str, dict[str, int]] = {name: {} for name in cases}
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(peer(python, MODULES[name], {**sizes, "library": name}, kinds=kinds, needs=name))
            for name, python in peers.items()
        }
        for name, case in cases.items():
            count, works = ours(case, args.batch, args.draws)
            counts[name] = {"jaxgen": count, **{library: each.params[name] for library, each in started.items()}}
            check_params(name, counts[name])
            for work in WORKS:
                kind = f"{name} {work}"
                calls = {"jaxgen": works[work], **{library: each.work[kind] for library, each in started.items()}}
                found[kind] = compare(calls, repeats=args.repeats, seconds=args.seconds)
                print(kind, {name: each.rates for name, each in found[kind].items()}, file=sys.stderr)
        versions = {name: version for each in started.values() for name, version in each.versions.items()}
    return found, counts, versions


def main(argv: Sequence[str]) -> int:
    """Measures all in turns and prints the table.

    Raises:
        UserError: for bad input, or if flows differ in size.
    """
    args = parser().parse(argv)
    check_positive(args, "batch", "draws", "repeats", "seconds")
    peers, cases = peers_named(args.peer), {name: CASES[name] for name in named("cases", args.cases, CASES)}
    devices.keep_memory()
    found, counts, versions = _measure(args, peers, cases)
    environment = {**devices.environment(), "peers": versions, "params": counts}
    if args.json:
        rates = {kind: {name: each.rates for name, each in row.items()} for kind, row in found.items()}
        Path(args.json).write_text(json.dumps({"rates": rates, "environment": environment}) + "\n", encoding="utf-8")
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"{environment['hardware']}\njax {jax.__version__}, {said}; batch {args.batch}, {args.draws} draws")
    print(f"parameters: {counts}")
    print(table(found))
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
