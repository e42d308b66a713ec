"""Speed of a GPT against that of transformers in torch (eager), the same sizes in both, in turns.

    python -m benchmarks.gpt --peer PYTHON [--sizes small,large] [--batch 12] [--repeats 7] [--seconds 2]

PYTHON is the interpreter of an environment with torch and transformers. The sizes are nanoGPT's for characters: `small`
is 4 layers of 128 and a context of 64, `large` 6 of 384 and 256. Measured are a train step of Adam on a batch of
windows; and drawing one window, and a batch of them, token by token with a cache of keys and values (theirs by calls of
the network with `use_cache`, which is quicker than `generate`). The weights are random. Ours has one vector more, from
which the first token is drawn; theirs is given a token instead.
"""

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
from jaxgen.distributions import categorical_conditional
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.nets.transformer import Transformer
from jaxgen.types import Batch

PROG = "python -m benchmarks.gpt"
WORKS = ("train", "draw_one", "draw_batch")
NUM_TOKENS = 65


class Size(NamedTuple):
    """Of a GPT."""

    depth: int
    width: int
    num_heads: int
    length: int


SIZES = {"small": Size(4, 128, 4, 64), "large": Size(6, 384, 6, 256)}


def parser() -> cli.Parser:
    """The flags."""
    parser = cli.Parser(PROG, description="Speed of a GPT against transformers in torch, in turns.")
    parser.add_argument("--peer", required=True, metavar="PYTHON", help="interpreter with torch and transformers")
    parser.add_argument("--sizes", default=",".join(SIZES), help=f"of {', '.join(SIZES)}, with commas between")
    parser.add_argument("--batch", type=int, default=12, help="windows in a train step, and in a batch that is drawn")
    parser.add_argument("--repeats", type=int, default=7, help="blocks that are timed, of which the median counts")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a block, at least")
    parser.add_argument("--json", default=None, help="file that also gets the result")
    return parser


def ours(size: Size, batch: int) -> tuple[int, dict[str, Callable[[], Any]]]:
    """Number of parameters, and the three kinds of work."""
    tx, key, placement = optax.adam(1e-3), jax.random.key(0), devices.placement("jit")
    net = Transformer(NUM_TOKENS, (size.length,), width=size.width, depth=size.depth, num_heads=size.num_heads)
    model = autoregressive(net, (size.length,), categorical_conditional(NUM_TOKENS))
    data = Batch(jax.random.randint(key, (batch, size.length), 0, NUM_TOKENS))
    train, params = training(placement, model, tx, data)
    draw = placement.sample(model)
    work = {"train": train, "draw_one": lambda: draw(params, key, 1), "draw_batch": lambda: draw(params, key, batch)}
    return sum(leaf.size for leaf in jax.tree.leaves(params)), work


def tokens(work: str, size: Size, batch: int) -> int:
    """Tokens in one call of a kind of work."""
    return size.length * (1 if work == "draw_one" else batch)


def table(found: dict[str, dict[str, Measured]], num_tokens: dict[str, int]) -> str:
    """Tokens per second of both, and ours over theirs."""
    lines = [f"{'tokens/s':20}{'jaxgen':>12}{'transformers':>14}{'ratio':>8}"]
    for row, both in found.items():
        one, other = both["jaxgen"], both["transformers"]
        rates = one.rate * num_tokens[row], other.rate * num_tokens[row]
        lines.append(f"{row:20}{rates[0]:12.4g}{rates[1]:14.4g}{ratio(one, other):8.2f}")
    return "\n".join(lines)


def _measure(args: Any, name: str) -> tuple[dict[str, dict[str, Measured]], dict[str, str]]:
    """One size: what was measured, and the versions.

    Raises:
        UserError: if the numbers of parameters differ by more than the vector of the start.
    """
    size = SIZES[name]
    told = {**size._asdict(), "num_tokens": NUM_TOKENS, "batch": args.batch, "threads": num_threads()}
    count, works = ours(size, args.batch)
    with peer(args.peer, "peer_gpt", told, kinds=WORKS, needs="torch or no transformers") as theirs:
        if count != theirs.params + size.width:
            raise UserError(f"the networks differ: {count} parameters here, {theirs.params} there")
        found = {}
        for work in WORKS:
            calls = {"jaxgen": works[work], "transformers": theirs.work[work]}
            found[f"{name} {work}"] = compare(calls, repeats=args.repeats, seconds=args.seconds)
            print(name, work, {key: each.rates for key, each in found[f"{name} {work}"].items()}, file=sys.stderr)
    return found, theirs.versions


def main(argv: Sequence[str]) -> int:
    """Measures both in turns and prints the table.

    Raises:
        UserError: for bad input, or if the two networks differ in size.
    """
    args = parser().parse(argv)
    check_positive(args, "batch", "repeats", "seconds")
    names = named("sizes", args.sizes, SIZES)
    devices.keep_memory()
    found: dict[str, dict[str, Measured]] = {}
    versions: dict[str, str] = {}
    for name in names:
        rows, versions = _measure(args, name)
        found.update(rows)
    environment = {**devices.environment(), "peer": versions}
    if args.json:
        rates = {kind: {name: each.rates for name, each in pair.items()} for kind, pair in found.items()}
        Path(args.json).write_text(json.dumps({"rates": rates, "environment": environment}) + "\n", encoding="utf-8")
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"{environment['hardware']}\njax {jax.__version__}, {said}; batch {args.batch}")
    print(table(found, {f"{name} {work}": tokens(work, SIZES[name], args.batch) for name in names for work in WORKS}))
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
