r"""Training at published sizes on one accelerator: types, rematerialisation, fused attention.

    python -m benchmarks.accelerator [--networks ddpm++,dit,gpt2] [--repeats 3] [--seconds 1] [--json FILE]

`ddpm++` is the published U-Net of CIFAR-10 (61.8 million parameters, 32x32x3, batches of 128), `dit` a DiT-B/2 for the
same images (130 million, batches of 64), and `gpt2` the smallest GPT-2 (124 million, 16 windows of 1024 of 50257
tokens). A step is a whole one: loss, gradients, Adam and the moving average, on a batch that lies on the device. A
variant that does not fit is left out, and said on stderr. Printed are

    (1)  work = 3 x the products of the forward pass (`benchmarks.flops`), whatever is computed again
    (2)  share = work / second over what a product of two 8192 x 8192 matrices reaches here in bfloat16

and the memory that the compiled step asks for. Last, for `ddpm++`: the time of 50 steps of DDIM over 50 evaluations.
"""

import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.flops import products
from benchmarks.measure import Measured, compare
from benchmarks.peering import check_positive, named
from experiments import cli, devices
from jaxgen import core, paths
from jaxgen.distributions import categorical_conditional
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.nets.blocks import DDPM_PLUS
from jaxgen.nets.dit import DiT
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.unet import UNet
from jaxgen.types import Batch

PROG = "python -m benchmarks.accelerator"
HALF, FUSED, REMAT = {"dtype": jnp.bfloat16}, {"attention": devices.attend_fused}, {"remat": True}
SIDE = 8192


class Work(NamedTuple):
    """A network and its training.

    Attributes:
        net: the network, in float32.
        shape: of one example.
        num_levels: values of an element.
        batch: examples in a step.
        variants: names to the fields in which the networks that are compared differ.
    """

    net: Any
    shape: Sequence[int]
    num_levels: int
    batch: int
    variants: dict[str, dict[str, Any]]


PLAIN = {"float32": {}, "bfloat16": HALF}
IMAGES = (32, 32, 3)
WORKS = {
    "ddpm++": Work(
        UNet(128, (1, 2, 2, 2), 4, (1,), style=DDPM_PLUS), IMAGES, 256, 128, {**PLAIN, "bfloat16, remat": HALF | REMAT}
    ),
    "dit": Work(
        DiT(2, 768, 12, 12),
        IMAGES,
        256,
        64,
        {**PLAIN, "bfloat16, fused": HALF | FUSED, "bfloat16, fused, remat": HALF | FUSED | REMAT},
    ),
    "gpt2": Work(
        Transformer(50257, (1024,), width=768, depth=12, num_heads=12),
        (1024,),
        50257,
        16,
        {**PLAIN, "bfloat16, fused": HALF | FUSED},
    ),
}


class Step(NamedTuple):
    """A compiled train step.

    Attributes:
        call: starts a step.
        compile_seconds: to compile it, other steps beside it.
        memory: bytes that it asks for, its state included.
    """

    call: Callable[[], Any]
    compile_seconds: float
    memory: int


def model_of(work: Work, fields: dict[str, Any]) -> core.Model:
    """The model of a network with some fields changed: diffusion of images, or the density of texts."""
    net = work.net.clone(**fields)
    if len(work.shape) == 3:
        return diffusion(net, work.shape, path=paths.cosine(), parametrization=paths.V)
    return autoregressive(net, work.shape, categorical_conditional(work.num_levels))


def data(work: Work) -> Batch:
    """A batch at random: levels, scaled to [-1, 1] for images."""
    levels = jax.random.randint(jax.random.key(0), (work.batch, *work.shape), 0, work.num_levels)
    return Batch(levels / 127.5 - 1 if len(work.shape) == 3 else levels)


def train_flops(work: Work) -> int:
    """(1), for one step."""
    model, batch = model_of(work, {}), jax.eval_shape(lambda: data(work))
    params, carry = jax.eval_shape(model.init, jax.random.key(0), batch)
    return 3 * products(model.loss, params, carry, jax.random.key(0), batch)


def compiled(work: Work, fields: dict[str, Any], start: core.TrainState) -> Step:
    """The train step of a variant, which begins with a copy of a state."""
    model, batch = model_of(work, fields), data(work)
    step = jax.jit(core.train_step(model, optax.adam(2e-4), ema_decay=0.9999), donate_argnums=0)
    lowered = step.lower(start, batch)
    began = time.perf_counter()
    run = lowered.compile()
    seconds = time.perf_counter() - began
    sizes: Any = run.memory_analysis()
    states: list[Any] = [None]

    def call() -> Any:
        states[0], metrics = run(states[0] or jax.tree.map(jnp.copy, start), batch)
        return states[0].params, metrics

    memory = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return Step(call, seconds, memory - sizes.alias_size_in_bytes)


def ceiling(dtype: Any, repeats: int) -> float:
    """Operations per second of a product of two 8192 x 8192 matrices of normal numbers."""
    a, b = (jax.random.normal(jax.random.key(seed), (SIDE, SIDE), dtype) for seed in range(2))
    multiply = jax.jit(jnp.matmul)
    found = compare({"product": lambda: multiply(a, b)}, repeats=repeats, seconds=0.2)["product"]
    return 2 * SIDE**3 * found.rate


def price(params: Any, *, num: int, num_steps: int, repeats: int) -> float:
    """Time of a draw of `num` images by DDIM over that of as many evaluations, one call each."""
    net = WORKS["ddpm++"].net.clone(**HALF)
    model = diffusion(net, IMAGES, path=paths.cosine(), parametrization=paths.V, num_steps=num_steps)
    draw = jax.jit(model.sample, static_argnums=2)
    forward = jax.jit(lambda params, x, t: net.apply({"params": params}, x, t))
    x, t = jax.random.normal(jax.random.key(0), (num, *IMAGES)), jnp.full(num, 0.5)

    def evaluations() -> Any:
        for _ in range(num_steps):
            out = forward(params, x, t)
        return out

    keys = itertools.count()
    calls = {"draw": lambda: draw(params, jax.random.key(next(keys)), num), "evaluations": evaluations}
    found = compare(calls, repeats=repeats, seconds=0.5)
    return statistics.median(b / a for a, b in zip(found["draw"].rates, found["evaluations"].rates, strict=True))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results, aligned."""
    lines = [f"{'network':8}{'variant':24}{'compile s':>10}{'examples/s':>12}{'TFLOP/s':>9}{'share':>7}{'GiB':>7}"]
    for row in rows:
        rates = f"{row['examples_per_second']:12.4g}{row['flops_per_second'] / 1e12:9.3g}{row['share']:7.1%}"
        lines.append(
            f"{row['network']:8}{row['variant']:24}{row['compile_seconds']:10.1f}{rates}{row['memory'] / 2**30:7.1f}"
        )
    return "\n".join(lines)


def _row(name: str, variant: str, step: Step, found: Measured, limit: float) -> dict[str, Any]:
    flops = train_flops(WORKS[name]) * found.rate
    return {
        "network": name,
        "variant": variant,
        "compile_seconds": step.compile_seconds,
        "examples_per_second": WORKS[name].batch * found.rate,
        "flops_per_second": flops,
        "share": flops / limit,
        "memory": step.memory,
    }


def _fits(name: str, variant: str, step: Step) -> bool:
    """Whether a step finds the memory that it asks for; what is said if not goes to stderr."""
    try:
        jax.block_until_ready(step.call())
    except jax.errors.JaxRuntimeError as error:
        print(f"{name} {variant}: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
        return False
    return True


def measured(name: str, repeats: int, seconds: float) -> tuple[list[dict[str, Any]], Any]:
    """All variants of a network, compiled side by side and then timed in turns; and its first parameters."""
    work = WORKS[name]
    init = jax.jit(functools.partial(core.init_state, model_of(work, {}), optax.adam(2e-4)))
    start = init(jax.random.key(0), data(work))
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda fields: compiled(work, fields, start), work.variants.values())
        steps = dict(zip(work.variants, made, strict=True))
    for variant, step in steps.items():
        print(f"{name} {variant}: compiled in {step.compile_seconds:.0f} s", file=sys.stderr, flush=True)
    steps = {variant: step for variant, step in steps.items() if _fits(name, variant, step)}
    limit = ceiling(jnp.bfloat16, repeats)
    found = compare({variant: step.call for variant, step in steps.items()}, repeats=repeats, seconds=seconds)
    rows = [_row(name, variant, step, found[variant], limit) for variant, step in steps.items()]
    print("\n".join(map(json.dumps, rows)), file=sys.stderr, flush=True)
    return rows, start.params


def main(argv: Sequence[str]) -> int:
    """Measures, and prints the table.

    Raises:
        UserError: for bad input.
    """
    parser = cli.Parser(PROG, description="Training at published sizes on one accelerator.")
    parser.add_argument("--networks", default=",".join(WORKS), help=f"of {', '.join(WORKS)}, with commas between")
    parser.add_argument("--repeats", type=int, default=3, help="blocks that are timed, of which the median counts")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a block, at least")
    parser.add_argument("--json", default=None, help="file that also gets the result")
    args = parser.parse(argv)
    check_positive(args, "repeats", "seconds")
    names = named("networks", args.networks, WORKS)
    rows: list[dict[str, Any]] = []
    prices = None
    for name in names:
        more, params = measured(name, args.repeats, args.seconds)
        rows += more
        if name == "ddpm++":
            prices = price(params, num=64, num_steps=50, repeats=args.repeats)
    limits = {"bfloat16": ceiling(jnp.bfloat16, args.repeats), "float32": ceiling(jnp.float32, args.repeats)}
    environment = devices.environment()
    if args.json:
        found = {"rows": rows, "limits": limits, "price": prices, "environment": environment}
        Path(args.json).write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(f"{environment['hardware']}\njax {jax.__version__}, jaxlib {environment['versions'].get('jaxlib')}")
    print(f"products: bfloat16 {limits['bfloat16'] / 1e12:.0f}, float32 {limits['float32'] / 1e12:.0f} TFLOP/s")
    print(table(rows))
    print("" if prices is None else f"50 steps of DDIM, 64 images: {prices:.3f} x 50 evaluations")
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
