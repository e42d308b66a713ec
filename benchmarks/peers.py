"""Speed of diffusion against diffusers in torch, the same U-Net in both, in turns.

    python -m benchmarks.peers --peer PYTHON [--channels 32] [--batch 64] [--repeats 7] [--seconds 2]

PYTHON is the interpreter of an environment with torch and diffusers. Measured are a train step (of noise prediction),
one forward pass, and samples by 50 steps of DDIM. Both networks must have the same number of parameters, and both
processes keep the memory that is freed, with jemalloc where that is preloaded (LD_PRELOAD). With JAX_NUM_CPU_DEVICES=2
in the environment and `--parallel mesh` each half of a batch has a device of its own, where two cores share every
operation otherwise. Last comes the price of our samples in forward passes, these two in turns.
"""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.measure import Measured, compare, ratio
from benchmarks.own import training
from benchmarks.peering import check_positive, named, num_threads, peer
from experiments import cli, devices
from experiments.errors import UserError
from jaxgen import paths
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.nets.unet import UNet
from jaxgen.types import Batch

PROG = "python -m benchmarks.peers"
COMPARED = ("train", "forward", "sample")
KINDS = (*COMPARED, "price")
SIDE, NUM_STEPS = 28, 50


def parser() -> cli.Parser:
    """The flags."""
    parser = cli.Parser(PROG, description="Speed of diffusion against diffusers in torch, in turns.")
    parser.add_argument("--peer", required=True, metavar="PYTHON", help="interpreter with torch and diffusers")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}, with commas between")
    parser.add_argument("--parallel", choices=("jit", "mesh"), default="jit", help="one device of ours, or all")
    parser.add_argument("--channels", type=int, default=32, help="channels of the U-Net at full resolution")
    parser.add_argument("--batch", type=int, default=64, help="images in a step or a set of samples")
    parser.add_argument("--repeats", type=int, default=7, help="blocks that are timed, of which the median counts")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a block, at least")
    parser.add_argument("--json", default=None, help="file that also gets the result")
    return parser


def ours(parallel: str, channels: int, batch: int) -> tuple[int, dict[str, Callable[[], Any]]]:
    """Number of parameters, and the three kinds of work."""
    net, placement = UNet(channels, (1, 2, 2), 2, (1,)), devices.placement(parallel)
    path, tx = paths.ddpm(), optax.adam(1e-3)
    model = diffusion(net, (SIDE, SIDE, 1), path=path, parametrization=paths.EPS, num_steps=NUM_STEPS)
    data = Batch(jax.random.normal(jax.random.key(0), (batch, SIDE, SIDE, 1)))
    train, params = training(placement, model, tx, data)
    images = placement.put_batch(data).x
    options = devices.compiler_options()
    apply = jax.jit(lambda params, x, t: net.apply({"params": params}, x, t), compiler_options=options)
    draw = placement.sample(model)
    work = {
        "train": train,
        "forward": lambda: jax.block_until_ready(apply(params, images, jnp.zeros(batch))),
        "sample": lambda: draw(params, jax.random.key(2), batch),
    }
    return sum(leaf.size for leaf in jax.tree.leaves(params)), work


def prices(forward: Callable[[], Any], sample: Callable[[], Any], *, repeats: int) -> list[float]:
    """What a sample costs in units of its number of forward passes, measured in pairs one after the other."""

    def passes() -> Any:
        return [forward() for _ in range(NUM_STEPS)][-1]

    found = compare({"sample": sample, "passes": passes}, repeats=repeats, seconds=0.0)  # blocks of one call
    return [b / a for a, b in zip(found["sample"].rates, found["passes"].rates, strict=True)]


def table(found: dict[str, dict[str, Measured]], price: list[float], batch: int) -> str:
    """Rates, the ratio, and the price of a sample in forward passes."""
    lines = [f"{'':10}{'jaxgen/s':>12}{'diffusers/s':>14}{'ratio':>8}   images/s of jaxgen"]
    for kind, both in found.items():
        one, other = both["jaxgen"], both["diffusers"]
        lines.append(f"{kind:10}{one.rate:12.4g}{other.rate:14.4g}{ratio(one, other):8.2f}   {one.rate * batch:.4g}")
    if price:
        middle, ends = statistics.median(price), f"{min(price):.3f} to {max(price):.3f}"
        lines.append(f"jaxgen: {NUM_STEPS} steps cost {middle:.3f} ({ends}) x {NUM_STEPS} forward passes")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Measures both in turns and prints the table.

    Raises:
        UserError: for bad input, or if the two networks differ in size.
    """
    args = parser().parse(argv)
    check_positive(args, "channels", "batch", "repeats", "seconds")
    devices.keep_memory()
    sizes = {
        "channels": args.channels,
        "batch": args.batch,
        "side": SIDE,
        "num_steps": NUM_STEPS,
        "threads": num_threads(),
    }
    kinds = named("kinds", args.kinds, KINDS)
    count, work = ours(args.parallel, args.channels, args.batch)
    with peer(args.peer, "peer_diffusers", sizes, kinds=COMPARED, needs="torch or no diffusers") as theirs:
        if count != theirs.params:
            raise UserError(f"the networks differ: {count} parameters here, {theirs.params} there")
        found = {}
        for kind in [kind for kind in COMPARED if kind in kinds]:
            both = {"jaxgen": work[kind], "diffusers": theirs.work[kind]}
            found[kind] = compare(both, repeats=args.repeats, seconds=args.seconds)
            print(kind, {name: each.rates for name, each in found[kind].items()}, file=sys.stderr)
    price = prices(work["forward"], work["sample"], repeats=args.repeats) if "price" in kinds else []
    environment = {**devices.environment(), "peer": theirs.versions, "params": count}
    if args.json:
        rates = {kind: {name: each.rates for name, each in pair.items()} for kind, pair in found.items()}
        Path(args.json).write_text(
            json.dumps({"rates": rates, "price": price, "environment": environment}) + "\n", encoding="utf-8"
        )
    said = ", ".join(f"{name} {version}" for name, version in theirs.versions.items())
    print(f"{environment['hardware']}\njax {jax.__version__}, {said}; {count} parameters, batch {args.batch}")
    print(table(found, price, args.batch))
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
