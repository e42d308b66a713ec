"""Time to compile the training step of flows, by depth: `python -m benchmarks.compile_time [FLOW ...] [--depths 2,4]`.

Flows of vectors of 64 numbers are one `lax.scan` over their layers. Those of images (28x28, of two scales) are measured
both as a loop over the layers of a scale and with these written out, see `bijections.repeat`. For each depth a JSON
line says the processor seconds of the first step of Adam less those of the second, and how many steps a second follow,
the two forms in turns. Depth is the number of layers of a kind at a scale: Glow's `num_steps`, and `num_layers`
elsewhere.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from benchmarks.measure import compare, ratio
from benchmarks.own import training
from benchmarks.peering import check_positive
from experiments import cli, devices
from experiments.errors import UserError
from jaxgen.core import Model
from jaxgen.models.flows.glow import glow
from jaxgen.models.flows.maf import maf
from jaxgen.models.flows.real_nvp import real_nvp, real_nvp_image
from jaxgen.types import Batch

__all__ = ["FLOWS", "compile_seconds", "main", "measure"]

PROG = "python -m benchmarks.compile_time"
DIMS, IMAGE = (64,), (28, 28, 1)
FLOWS: dict[str, tuple[Callable[..., Model], tuple[int, ...]]] = {
    "real_nvp": (lambda depth: real_nvp(*DIMS, num_layers=depth), DIMS),
    "maf": (lambda depth: maf(*DIMS, num_layers=depth), DIMS),
    "glow": (lambda depth, **how: glow(IMAGE, num_steps=depth, **how), IMAGE),
    "real_nvp_image": (lambda depth, **how: real_nvp_image(IMAGE, num_layers=depth, **how), IMAGE),
}
"""Depth to a flow, that of images told what to `unroll`, and the shape of an example."""


def compile_seconds(train: Callable[[], Any]) -> float:
    """Processor seconds, of all threads, that a first call takes and a second one does not."""
    marks = [time.process_time()]
    for _ in range(2):
        jax.block_until_ready(train())
        marks.append(time.process_time())
    return (marks[1] - marks[0]) - (marks[2] - marks[1])


def measure(name: str, depth: int, batch: int, repeats: int, seconds: float) -> dict[str, Any]:
    """What one flow takes.

    Args:
        name: one of `FLOWS`.
        depth: its number of layers of a kind at a scale.
        batch: examples in a step.
        repeats: number of blocks of steps that are timed, of which the median counts.
        seconds: length of a block, at least.
    """
    build, shape = FLOWS[name]
    models = (
        {"loops_": build(depth, unroll=1), "": build(depth, unroll=depth)} if shape == IMAGE else {"": build(depth)}
    )
    data = Batch(jax.random.uniform(jax.random.key(0), (batch, *shape)))
    placement = devices.placement("jit")
    calls = {form: training(placement, model, optax.adam(1e-3), data)[0] for form, model in models.items()}
    row: dict[str, Any] = {f"{form}compile_seconds": compile_seconds(train) for form, train in calls.items()}
    found = compare(calls, repeats=repeats, seconds=seconds)
    row |= {f"{form}steps_per_second": each.rate for form, each in found.items()}
    return row | ({"slower_in_loops": ratio(found[""], found["loops_"])} if len(found) == 2 else {})


def _depths(text: str) -> list[int]:
    """Numbers of at least 1, with commas between.

    Raises:
        UserError: if one is none.
    """
    parts = text.split(",")
    if wrong := [part for part in parts if not part.isdecimal() or int(part) < 1]:
        raise UserError(f"--depths must be numbers of at least 1 with commas between, got {wrong[0]!r}")
    return [int(part) for part in parts]


def main(argv: Sequence[str]) -> int:
    """Prints a JSON line for each flow and depth.

    Raises:
        UserError: for bad input.
    """
    parser = cli.Parser(PROG, description="Time to compile the training step of flows, by depth.")
    parser.add_argument("flows", nargs="*", help=f"of {', '.join(FLOWS)}; all by default")
    parser.add_argument("--depths", default="2,4,8,16", help="numbers of layers, with commas between")
    parser.add_argument("--batch", type=int, default=16, help="examples in a step")
    parser.add_argument("--repeats", type=int, default=3, help="blocks that are timed, of which the median counts")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a block, at least")
    args = parser.parse(argv)
    check_positive(args, "batch", "repeats", "seconds")
    if unknown := [name for name in args.flows if name not in FLOWS]:
        raise UserError(f"flows are of {', '.join(FLOWS)}, got {unknown[0]!r}")
    depths = _depths(args.depths)
    devices.keep_memory()
    for name in args.flows or FLOWS:
        for depth in depths:
            found = measure(name, depth, args.batch, args.repeats, args.seconds)
            print(json.dumps({"flow": name, "depth": depth, "jax": jax.__version__, **found}), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
