"""Flows on the plane, seen and measured: `python -m benchmarks.plane [--figure FILE] [--json FILE]`.

The flows of `jaxgen.models.flows` that take vectors, but for NICE and IAF, are trained on fresh draws from densities
whose logarithm is known (`experiments.data.toy`), for the same number of steps, but for FFJORD, whose steps cost ten
times as much: a fifth.
What it misses is the mean of ln p(x) - ln q(x) over 10000 draws of p, in nats, an unbiased estimate of the
Kullback-Leibler divergence KL(p, q); the figure shows exp(ln q) beside the density itself, and the table says how much
of q's mass lies in the picture, which is 1 for a normalised density.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peering import check_positive
from experiments import cli, devices
from experiments.data.toy import DENSITIES, Density
from jaxgen.core import Model, init_state, train_step
from jaxgen.models.flows.ffjord import ffjord
from jaxgen.models.flows.maf import maf
from jaxgen.models.flows.neural_spline_flow import neural_spline_flow, neural_spline_flow_autoregressive
from jaxgen.models.flows.real_nvp import real_nvp
from jaxgen.models.flows.residual_flow import residual_flow
from jaxgen.nets.time import TimeMLP, slow_features
from jaxgen.types import Batch

PROG = "python -m benchmarks.plane"
BATCH, NUM_TEST, SIDE, LIMIT = 256, 10_000, 160, 5.0

FLOWS: dict[str, Callable[[], Model]] = {
    "Real NVP": lambda: real_nvp(2),
    "MAF": lambda: maf(2),
    "splines, coupling": lambda: neural_spline_flow(2, num_bins=16, bound=4.0),
    "splines, autoregressive": lambda: neural_spline_flow_autoregressive(2, num_bins=16, bound=4.0),
    "FFJORD": lambda: ffjord(TimeMLP((64, 64, 64), embed=slow_features), (2,), num_probes=0),
    "residual": lambda: residual_flow(2),
}


class Fit(NamedTuple):
    """A trained flow.

    Attributes:
        missed: estimate of KL(p, q) in nats.
        error: its standard error.
        mass: integral of q over the picture.
        density: q on the pixels, `[SIDE, SIDE]`.
        seconds: of training, compilation included.
    """

    missed: float
    error: float
    mass: float
    density: Any
    seconds: float


def pixels() -> Any:
    """The centres of the picture's pixels, row by row from the bottom, `[SIDE^2, 2]`."""
    centres = (jnp.arange(SIDE) + 0.5) * (2 * LIMIT / SIDE) - LIMIT
    return jnp.stack(jnp.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


def fit(density: Density, model: Model, num_steps: int) -> Fit:
    """Trains a flow, its step size falling to 0 along a half cosine, and measures its averaged parameters."""
    start, key = time.perf_counter(), jax.random.key(0)
    tx = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(2e-3, num_steps)))
    step = train_step(model, tx, ema_decay=0.99)

    @jax.jit
    def trained(key: Any) -> Any:
        def one(index: Any, state: Any) -> Any:
            return step(state, Batch(density.sample(jax.random.fold_in(key, index), BATCH)))[0]

        state = init_state(model, tx, key, Batch(density.sample(key, BATCH)))
        return jax.lax.fori_loop(0, num_steps, one, state).ema_params

    exact: Any = model.log_prob
    params, log_prob = jax.block_until_ready(trained(key)), jax.jit(exact)
    seconds, x = time.perf_counter() - start, density.sample(jax.random.key(1), NUM_TEST)
    missed = density.log_prob(x) - log_prob(params, x)
    q = jnp.exp(log_prob(params, pixels())).reshape(SIDE, SIDE)
    mass = float(q.sum()) * (2 * LIMIT / SIDE) ** 2
    return Fit(float(missed.mean()), float(missed.std() / NUM_TEST**0.5), mass, np.asarray(q), seconds)


def table(name: str, fits: dict[str, Fit]) -> str:
    """One line for each flow."""
    lines = [f"{name:26}{'missed, nats':>20}{'mass seen':>12}{'seconds':>10}"]
    for flow, found in fits.items():
        missed = f"{found.missed:.4f} +- {found.error:.4f}"
        lines.append(f"{flow:26}{missed:>20}{found.mass:12.3f}{found.seconds:10.0f}")
    return "\n".join(lines)


def figure(found: dict[str, dict[str, Fit]], path: str) -> None:
    """A row for each density, itself first."""
    from matplotlib.figure import Figure

    num_columns = 1 + max(map(len, found.values()))
    canvas = Figure(figsize=(1.5 * num_columns, 1.55 * len(found)), layout="constrained")
    axes = canvas.subplots(len(found), num_columns, squeeze=False)
    for row, (name, fits) in zip(axes, found.items(), strict=True):
        exact = np.exp(np.asarray(DENSITIES[name]().log_prob(pixels()))).reshape(SIDE, SIDE)
        shown = {"exact": exact, **{flow: each.density for flow, each in fits.items()}}
        for axis, (title, image) in zip(row, shown.items(), strict=True):
            axis.imshow(image, origin="lower", cmap="viridis", vmin=0, vmax=exact.max())
            axis.set_xticks([])
            axis.set_yticks([])
            if name == next(iter(found)):
                axis.set_title(title, fontsize=7)
        row[0].set_ylabel(name.replace("_", " "), fontsize=7)
    canvas.savefig(path, dpi=110)


def main(argv: Sequence[str]) -> int:
    """Trains and measures; prints a table for each density.

    Raises:
        UserError: for bad input.
    """
    parser = cli.Parser(PROG, description="Flows on densities in the plane that are known.")
    parser.add_argument("--steps", type=int, default=5000, help="training steps of each flow")
    parser.add_argument("--densities", nargs="+", choices=DENSITIES, default=list(DENSITIES), help="which densities")
    parser.add_argument("--flows", nargs="+", choices=FLOWS, default=list(FLOWS), help="which flows")
    parser.add_argument("--figure", default=None, metavar="FILE", help="PNG to write")
    parser.add_argument("--json", default=None, metavar="FILE", help="JSON to write")
    args = parser.parse(argv)
    check_positive(args, "steps")
    found: dict[str, dict[str, Fit]] = {}
    for name in args.densities:
        found[name] = {}
        for flow in args.flows:
            num_steps = -(-args.steps // 5) if flow == "FFJORD" else args.steps
            found[name][flow] = fit(DENSITIES[name](), FLOWS[flow](), num_steps)
            print(f"{name}, {flow}: {found[name][flow].seconds:.0f} s", file=sys.stderr, flush=True)
        print(table(name, found[name]), flush=True)
    if args.json:
        numbers = {
            name: {flow: {**each._asdict(), "density": None} for flow, each in fits.items()}
            for name, fits in found.items()
        }
        record = {"fits": numbers, "steps": args.steps, "environment": devices.environment()}
        Path(args.json).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if args.figure:
        figure(found, args.figure)
    return 0


if __name__ == "__main__":
    cli.run(main, PROG)
