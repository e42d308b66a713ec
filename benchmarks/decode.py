r"""Speed of the cached decoding loop: `python -m benchmarks.decode [--repeats 3] [--num 1]`.

For a MADE and a gated PixelCNN of 28x28 pixels, a WaveNet of 16000 samples and a GPT of 256 tokens, each with random
weights:

    (1)  the time of a whole draw by the cached loop, for half of the positions and for all of them
    (2)  the time of one position by naive resampling (a pass over the whole sequence for every position), times T

and their ratio. Naive positions are timed on the first ones; each takes as long, since the pass is over all of them.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.peering import check_positive
from experiments import cli, devices
from experiments.errors import UserError
from jaxgen.distributions import categorical_conditional
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.nets import causal
from jaxgen.nets.made import MADE
from jaxgen.nets.pixel_cnn import GatedPixelCNN
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.wavenet import WaveNet

__all__ = ["run"]


class Case(NamedTuple):
    """A network, and the shapes of half and of all of its positions.

    Attributes:
        net: `shape -> network`.
        half: shape of an example of half as many positions.
        whole: shape of an example.
        num_levels: values of an element.
        num_naive: positions of which naive resampling is timed.
    """

    net: Callable[[Any], causal.Causal]
    half: Sequence[int]
    whole: Sequence[int]
    num_levels: int
    num_naive: int


CASES = {
    "made": Case(lambda shape: MADE(2, (1024, 1024), shape), (14, 28, 1), (28, 28, 1), 2, 20),
    "gated_pixel_cnn": Case(lambda shape: GatedPixelCNN(shape, 2, 32, 8, 7), (14, 28, 1), (28, 28, 1), 2, 20),
    "wavenet": Case(lambda shape: WaveNet(shape[0], 256, 256, 32, 64), (8000,), (16000,), 256, 3),
    "transformer": Case(lambda shape: Transformer(65, shape, 128, 4, 4), (128,), (256,), 65, 20),
}


def _compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled with the options of `experiments`."""
    return jax.jit(f, compiler_options=devices.compiler_options())


def naive(net: causal.Causal, shape: Sequence[int], num_levels: int, num_positions: int) -> Callable[..., Any]:
    """The first positions of a draw, with a pass over the whole sequence for each: `(params, key, x) -> x [n, ...]`."""
    conditional = categorical_conditional(num_levels)

    def draw(params: Any, key: Any, x: Any) -> Any:
        def advance(position: Any, x: Any) -> Any:
            output = causal.outputs(net, params, x.reshape(-1, *shape), None).reshape(x.shape[0], -1, num_levels)
            chosen = conditional.sample(jax.random.fold_in(key, position), output[:, position])
            return x.at[:, position].set(chosen)

        return jax.lax.fori_loop(0, num_positions, advance, x)

    return draw


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of warm calls."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _measure(case: Case, num: int, repeats: int) -> dict[str, Any]:
    """(1), (2) and their ratios."""
    key, cached = jax.random.key(0), []
    for shape in (case.half, case.whole):
        net = case.net(shape)
        model = autoregressive(net, shape, categorical_conditional(case.num_levels))
        zeros = jnp.zeros((1, *shape), jnp.int32)
        params = jax.jit(lambda net=net, zeros=zeros: causal.init(net, key, zeros, None))()
        draw = _compiled(lambda params, key, model=model: model.sample(params, key, num))
        cached.append(_seconds(partial(draw, params, key), repeats))
    length = zeros.size
    start = jnp.zeros((num, length), jnp.int32)
    slow = _compiled(naive(net, case.whole, case.num_levels, case.num_naive))
    per_position = _seconds(partial(slow, params, key, start), repeats) / case.num_naive
    return {
        "positions": length,
        "num": num,
        "cached_milliseconds_per_position": 1000 * cached[1] / length,
        "cached_half_seconds": cached[0],
        "cached_seconds": cached[1],
        "whole_over_half": cached[1] / cached[0],
        "naive_seconds": per_position * length,
        "naive_over_cached": per_position * length / cached[1],
    }


def run(argv: Sequence[str]) -> int:
    """Measures every case; prints a JSON line for each.

    Args:
        argv: arguments of the command.

    Raises:
        UserError: if an argument is wrong.
    """
    parser = cli.Parser("python -m benchmarks.decode")
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="draws that are timed, of which the median counts")
    parser.add_argument("--num", type=int, default=1, help="examples drawn at once")
    args = parser.parse(argv)
    check_positive(args, "repeats", "num")
    if unknown := [name for name in args.cases if name not in CASES]:
        raise UserError(f"cases are of {', '.join(CASES)}, got {unknown[0]!r}")
    devices.keep_memory()
    for name in args.cases or CASES:
        found = _measure(CASES[name], args.num, args.repeats)
        print(json.dumps({"case": name, "jax": jax.__version__, **found}), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(run, "benchmarks.decode")
