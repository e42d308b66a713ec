r"""Speed of the cached decoding loop: `python -m benchmarks.decode [CASE ...] [--repeats 3] [--seconds 0.3] [--num 1]`.

For every autoregressive network, of images, sounds or texts of the sizes in `CASES` and with random weights:

    (1)  the time of a whole draw by the cached loop, for half of the positions and for all of them
    (2)  the time of one position by naive resampling (a pass over the whole sequence for every position), times T

and their ratios, the three in turns. Naive positions are timed on the first ones; each takes as long, since the pass is
over all of them. What depends on the condition alone, such as the encoded source of a translator, both compute once.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.measure import compare, ratio
from benchmarks.peering import check_positive
from experiments import cli, devices
from experiments.errors import UserError
from jaxgen.distributions import Conditional, categorical_conditional, logistic_mixture
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.nets import causal
from jaxgen.nets.made import MADE
from jaxgen.nets.pixel_cnn import GatedPixelCNN, PixelCNN
from jaxgen.nets.pixel_cnn_plus import PixelCNNPlus
from jaxgen.nets.pixel_rnn import PixelRNN
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.transformer_blocks import MODERN
from jaxgen.nets.translator import Translator
from jaxgen.nets.wavenet import WaveNet

__all__ = ["CASES", "Case", "measure", "naive", "run"]

HALF, WHOLE = (14, 28, 1), (28, 28, 1)
BITS, CHARACTERS, LEVELS, WORDS = (categorical_conditional(num) for num in (2, 65, 256, 4000))
COLOURS = logistic_mixture(256, 10, num_channels=3)
SOUND = logistic_mixture(2**16, 10, min_log_scale=-16 * math.log(2) - 1.5)


class Case(NamedTuple):
    """A network, the density of its elements, and the shapes of half and of all of its positions.

    Attributes:
        net: `shape -> network`.
        half: shape of an example of half as many positions.
        whole: shape of an example.
        conditional: density of an element.
        num_naive: positions of which naive resampling is timed.
        source_length: tokens of the text that examples are conditioned on; 0 for no condition.
    """

    net: Callable[[Any], causal.Causal]
    half: Sequence[int]
    whole: Sequence[int]
    conditional: Conditional
    num_naive: int
    source_length: int = 0


CASES = {
    "made": Case(lambda shape: MADE(2, (1024, 1024), shape), HALF, WHOLE, BITS, 20),
    "pixel_cnn": Case(lambda shape: PixelCNN(shape, 2, 32, 8, 7), HALF, WHOLE, BITS, 20),
    "gated_pixel_cnn": Case(lambda shape: GatedPixelCNN(shape, 2, 32, 8, 7), HALF, WHOLE, BITS, 20),
    "pixel_cnn_plus": Case(
        lambda shape: PixelCNNPlus(shape, 256, COLOURS.num_outputs, 32, 2, 3), (16, 32, 3), (32, 32, 3), COLOURS, 10
    ),
    "pixel_rnn": Case(lambda shape: PixelRNN(shape, 2, 32, 7, 7), HALF, WHOLE, BITS, 10),
    "pixel_rnn_rows": Case(lambda shape: PixelRNN(shape, 2, 32, 7, 7, diagonal=False), HALF, WHOLE, BITS, 10),
    "image_transformer": Case(lambda shape: Transformer(2, shape, 128, 4, 4), HALF, WHOLE, BITS, 5),
    "transformer": Case(lambda shape: Transformer(65, shape, 128, 4, 4), (128,), (256,), CHARACTERS, 20),
    "transformer_modern": Case(
        lambda shape: Transformer(65, shape, 128, 4, 4, style=MODERN), (128,), (256,), CHARACTERS, 20
    ),
    "translator": Case(
        lambda shape: Translator(4000, 4000, 40, shape[0], width=128, hidden=256), (20,), (40,), WORDS, 20, 40
    ),
    "wavenet": Case(lambda shape: WaveNet(shape[0], 256, 256, 32, 64), (8000,), (16000,), LEVELS, 3),
    "wavenet_mixture": Case(
        lambda shape: WaveNet(shape[0], 2**16, SOUND.num_outputs, 32, 64), (8000,), (16000,), SOUND, 3
    ),
}
"""The published small networks, or those of the configs: the GPT and the translator have 4 layers of 128, WaveNet 20 of
32, PixelRNN 7 and PixelCNN 8. PixelCNN++ is of the default size, on images like those of CIFAR-10."""


def _compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled with the options of `experiments`."""
    return jax.jit(f, compiler_options=devices.compiler_options())


def naive(net: causal.Causal, shape: Sequence[int], conditional: Conditional, num_positions: int) -> Callable[..., Any]:
    """The first positions of a draw, with a pass over the whole sequence for each.

    Args:
        net: the network.
        shape: shape of an example.
        conditional: density of an element.
        num_positions: how many positions are drawn.

    Returns:
        `(params, key, x [n, T, ...], cond) -> x`, the draw of `autoregressive` with the same key where all are drawn.
    """

    def draw(params: Any, key: Any, x: Any, cond: Any) -> Any:
        keys, context = jax.random.split(key, x.shape[1]), net.apply({"params": params}, cond, method=net.context)

        def advance(position: Any, x: Any) -> Any:
            output: Any = net.apply({"params": params}, x.reshape(-1, *shape), context)
            chosen = conditional.sample(keys[position], output.reshape(*x.shape[:2], -1)[:, position])
            return x.at[:, position].set(chosen)

        return jax.lax.fori_loop(0, num_positions, advance, x)

    return draw


def measure(case: Case, num: int, repeats: int, seconds: float) -> dict[str, Any]:
    """(1), (2) and their ratios.

    Args:
        case: what is measured.
        num: examples drawn at once.
        repeats: number of blocks that are timed, of which the median counts.
        seconds: length of a block, at least.
    """
    key, calls = jax.random.key(0), {}
    cond = jnp.ones((num, case.source_length), jnp.int32) if case.source_length else None
    for name, shape in (("half", case.half), ("whole", case.whole)):
        net, zeros = case.net(shape), jnp.zeros((num, *shape), jnp.int32)
        params = jax.jit(partial(causal.init, net))(key, zeros, cond)
        sample = autoregressive(net, shape, case.conditional).sample
        draw = _compiled(lambda params, key, cond, sample=sample: sample(params, key, num, cond))
        calls[name] = partial(draw, params, key, cond)
    start = zeros.reshape(num, -1, *shape[len(shape) - case.conditional.event_ndim :])
    slow = _compiled(naive(net, shape, case.conditional, case.num_naive))
    found = compare(calls | {"naive": partial(slow, params, key, start, cond)}, repeats=repeats, seconds=seconds)
    length, times = start.shape[1], {name: 1 / each.rate for name, each in found.items()}
    return {
        "positions": length,
        "num": num,
        "cached_milliseconds_per_position": 1000 * times["whole"] / length,
        "cached_half_seconds": times["half"],
        "cached_seconds": times["whole"],
        "whole_over_half": ratio(found["half"], found["whole"]),
        "naive_seconds": times["naive"] / case.num_naive * length,
        "naive_over_cached": ratio(found["whole"], found["naive"]) / case.num_naive * length,
        "compile_seconds": found["whole"].compile_seconds,
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
    parser.add_argument("--repeats", type=int, default=3, help="blocks that are timed, of which the median counts")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a block, at least")
    parser.add_argument("--num", type=int, default=1, help="examples drawn at once")
    args = parser.parse(argv)
    check_positive(args, "repeats", "seconds", "num")
    if unknown := [name for name in args.cases if name not in CASES]:
        raise UserError(f"cases are of {', '.join(CASES)}, got {unknown[0]!r}")
    devices.keep_memory()
    for name in args.cases or CASES:
        found = measure(CASES[name], args.num, args.repeats, args.seconds)
        print(json.dumps({"case": name, "jax": jax.__version__, **found}), flush=True)
    return 0


if __name__ == "__main__":
    cli.run(run, "benchmarks.decode")
