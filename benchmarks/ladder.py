"""Whether few-step models train: their distance from the exact flow, along the training. `python -m benchmarks.ladder`.

Every trainer of `jaxgen.models.diffusion` that promises one or two steps is trained on data in two dimensions whose
flow is known: a Gaussian, and a mixture of three. The teacher gap is the root mean square, over noise, of the distance
between what a model makes of a noise and where the exact probability flow takes it, divided by the data's standard
deviation. Two-step samples of consistency models draw noise again in between, and so do their targets.

Flow matching is what they are measured beside, with noise and data coupled independently, and by optimal transport
within batches. The latter learns another flow. Of one Gaussian, as batches grow, both end at m + s z: the target is the
same. Of a mixture this one ends where no closed form says: there its target is its own flow in many steps, and the gap
says how straight it is, not where it ends. A model that leaves noise where it is has none. What tells such a model, and
compares all of them whatever their flow is, is in the last column, the energy distance between samples and data in
standard deviations: 0 for equal distributions, and +- 0.001 by chance for the 2000 that are drawn.

    python -m benchmarks.ladder [--steps 10000] [--trainers NAME ...] [--figure FILE] [--json FILE]
    python -m benchmarks.ladder --runs STUDENT=TEACHER [STUDENT=TEACHER ...]

The second goes on to images: run directories of `experiments`, every checkpoint of a student against many steps of its
teacher, from the same noise and labels.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks.gaps import Curve, energy_distance, figure, gap, of_runs, table
from benchmarks.mixture import DATA, TARGET_STEPS, Mixture, analytic, denoiser, draw, end_of_flow, solved, spread
from experiments import cli, devices
from experiments.errors import UserError
from jaxgen import paths
from jaxgen.core import Model, TrainState, init_state, train_step
from jaxgen.models.diffusion.consistency import consistency
from jaxgen.models.diffusion.continuous_consistency import continuous_consistency
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.models.diffusion.mean_flow import mean_flow
from jaxgen.models.diffusion.shortcut import shortcut
from jaxgen.nets.time import TimeMLP, slow_features
from jaxgen.samplers import generate
from jaxgen.samplers.ddim import ddim
from jaxgen.samplers.euler import euler
from jaxgen.samplers.renoise import renoise
from jaxgen.teaching import starting_from
from jaxgen.transforms import resample

PROG = "python -m benchmarks.ladder"
EVALUATIONS, BATCH, NUM = (1, 2), 256, 2000
EDM: dict[str, Any] = {"parametrization": paths.preconditioned(keep_t_min=True), "times": paths.log_normal_times()}
KARRAS, COSINE, LINEAR = paths.karras(), paths.cosine(), paths.linear()
FAST, SLOW = TimeMLP((128, 128)), TimeMLP((128, 128), embed=slow_features)


class Trainer(NamedTuple):
    """How a model is made.

    Attributes:
        path: its noise path.
        build: `num_evaluations -> Model`.
        renoised: whether its samples draw noise again between two steps.
        own_flow: whether its target is its own flow in many steps, as it learns another one than the exact.
        start: what is trained first, for as many steps, and whose parameters it starts from.
    """

    path: paths.Path
    build: Callable[[int], Model]
    renoised: bool
    own_flow: bool = False
    start: Model | None = None


def trainers(data: Mixture, num_steps: int) -> dict[str, Trainer]:
    """All trainers, for a training of `num_steps` steps."""

    def of(factory: Callable[..., Model], path: paths.Path, net: Any = FAST, **options: Any) -> Trainer:
        build = lambda num: factory(net, (2,), path=path, num_steps=num, **options)  # noqa: E731
        return Trainer(path, build, renoised=factory in (consistency, continuous_consistency))

    def flow(net: Any, shape: Any, *, path: paths.Path, num_steps: int, coupling: paths.Coupling) -> Model:
        model = diffusion(net, shape, path=path, parametrization=paths.VELOCITY, coupling=coupling)
        return resample(model, path, stepper=euler(), encoder=euler(), num_steps=num_steps)

    doubling = paths.log_normal_pairs(paths.doubling(num_steps, last=160))
    tuning = {"pairs": paths.tuning_pairs(-(-num_steps // 8))}
    distilled = {"teacher": analytic(data, KARRAS), "pairs": paths.log_normal_pairs(80)}
    continuous = {"num_warmup_steps": num_steps // 4}
    halved = {"instant_share": 0.5, "times": paths.independent_times}
    tuned = of(consistency, KARRAS, **tuning)
    transported = of(flow, LINEAR, SLOW, coupling=paths.optimal_transport_coupling())
    return {
        "consistency distillation": of(consistency, KARRAS, **distilled),
        "consistency training": of(consistency, KARRAS, pairs=doubling),
        "easy consistency tuning": tuned._replace(start=diffusion(FAST, (2,), path=KARRAS, **EDM)),
        "sCM, distilled": of(continuous_consistency, COSINE, SLOW, teacher=analytic(data, COSINE), **continuous),
        "sCM, trained": of(continuous_consistency, COSINE, SLOW, offset=1.0, **continuous),
        "MeanFlow, weighted": of(mean_flow, LINEAR, SLOW, **halved),
        "MeanFlow, mean square": of(mean_flow, LINEAR, SLOW, power=0.0, **halved),
        "shortcut": of(shortcut, LINEAR, target_decay=0.99),
        "flow matching": of(flow, LINEAR, SLOW, coupling=paths.independent_coupling()),
        "flow matching, OT": transported._replace(own_flow=len(data.weights) > 1),
        "reflow, Euler": of(flow, LINEAR, SLOW, coupling=paths.reflow_coupling(analytic(data, LINEAR))),
    }


def latents(key: Any) -> Any:
    """The noise that `generate.generate` starts from."""
    return jax.random.normal(jax.random.split(key)[0], (NUM, 2))


def drawn(trainer: Trainer, num_evaluations: int) -> Callable[[Any, Any], Any]:
    """`(params, key) -> x`, what the model makes of the noise of a key."""
    model: Any = trainer.build(num_evaluations)
    if trainer.renoised:
        return jax.jit(lambda params, key: model.sample(params, key, NUM))
    return jax.jit(lambda params, key: model.decode(params, latents(key)))


def target(data: Mixture, trainer: Trainer, key: Any, num_evaluations: int) -> Any:
    """What the exact function makes of it."""
    path, end = trainer.path, end_of_flow(data, trainer.path)
    grid = paths.karras_grid(path, num_evaluations if trainer.renoised else 1)
    return jax.jit(lambda key: generate.generate(renoise(), end, path, key, (NUM, 2), grid))(key)


def goal(data: Mixture, trainer: Trainer, key: Any, num_evaluations: int) -> Callable[[Any], Any]:
    """`params -> x`, what the samples of a model are compared with."""
    if trainer.own_flow:
        many = drawn(trainer, TARGET_STEPS)
        return lambda params: many(params, key)
    exact = target(data, trainer, key, num_evaluations)
    return lambda params: exact


def milestones(num_steps: int) -> list[int]:
    """0, and about 7 numbers from 30 to `num_steps` at even ratios."""
    return [0, *sorted({round(number) for number in np.geomspace(min(30, num_steps), num_steps, 7)})]


def training(
    data: Mixture, model: Model, tx: optax.GradientTransformation
) -> tuple[TrainState, Callable[[TrainState, Any], TrainState]]:
    """The first state, and `(state, until) -> state` that trains it up to so many steps."""
    step = train_step(model, tx, ema_decay=0.99)

    @jax.jit
    def advance(state: TrainState, until: Any) -> TrainState:
        def one(index: Any, state: TrainState) -> TrainState:
            return step(state, draw(data, jax.random.fold_in(jax.random.key(2), index), BATCH))[0]

        return jax.lax.fori_loop(state.step, until, one, state)

    return jax.jit(lambda key: init_state(model, tx, key, draw(data, key, BATCH)))(jax.random.key(0)), advance


def curve(data: Mixture, trainer: Trainer, num_steps: int) -> Curve:
    """Trains a model, and measures its averaged parameters along the way."""
    start, model, key = time.perf_counter(), trainer.build(1), jax.random.key(1)
    tx, scale = optax.adam(optax.cosine_decay_schedule(2e-3, num_steps)), spread(data)
    steps = milestones(num_steps)[1 if trainer.own_flow else 0 :]  # a flow that stands still has no gap to itself
    state, advance = training(data, model, tx)
    if trainer.start is not None:
        first, fit = training(data, trainer.start, tx)
        state = starting_from(state, fit(first, num_steps).ema_params)
    functions = {num: (drawn(trainer, num), goal(data, trainer, key, num)) for num in EVALUATIONS}
    gaps: dict[int, list[float]] = {num: [] for num in EVALUATIONS}
    for until in steps:
        state = advance(state, until)
        for num, (function, exact) in functions.items():
            gaps[num].append(gap(function(state.ema_params, key), exact(state.ema_params), scale))
    ends = {num: energy(data, function(state.ema_params, key)) for num, (function, _) in functions.items()}
    return Curve(steps, gaps, time.perf_counter() - start, ends)


def energy(data: Mixture, x: Any) -> float:
    """The energy distance between samples and as many examples, in units of the data's standard deviation."""
    return energy_distance(x, draw(data, jax.random.key(3), len(x)).x, spread(data))


def references(data: Mixture) -> dict[str, Curve]:
    """The analytic denoiser in one and two steps, which is what there is to gain on, and in many: the floor."""
    path, key = COSINE, jax.random.key(1)
    x_t = path.sigma(path.t_max) * latents(key)
    exact, scale = jax.jit(end_of_flow(data, path))(x_t, path.t_max), spread(data)

    def steps(num: int) -> Any:
        return generate.decode(ddim(), denoiser(data, path), path, key, latents(key), paths.karras_grid(path, num))

    found = {num: jax.jit(partial(steps, num))() for num in EVALUATIONS}
    many = {TARGET_STEPS: jax.jit(solved(data, path, TARGET_STEPS // 2))(x_t, path.t_max)}

    def reference(found: dict[int, Any]) -> Curve:
        gaps = {num: [gap(x, exact, scale)] for num, x in found.items()}
        return Curve([], gaps, energies={num: energy(data, x) for num, x in found.items()})

    return {"analytic, DDIM": reference(found), "analytic, Heun": reference(many)}


def main(argv: Sequence[str]) -> int:
    """Trains, measures and prints a table for each kind of data.

    Raises:
        UserError: for bad input.
    """
    parser = cli.Parser(PROG, description="Distance of few-step models from the exact flow, along the training.")
    parser.add_argument("--steps", type=int, default=10000, help="training steps of each model in two dimensions")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), help="which data in two dimensions")
    names = list(trainers(DATA["Gaussian"], 32))
    parser.add_argument("--trainers", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--runs", nargs="+", default=[], metavar="STUDENT=TEACHER", help="measure runs of images")
    parser.add_argument("--figure", default=None, metavar="FILE", help="SVG to write")
    parser.add_argument("--json", default=None, metavar="FILE", help="JSON to write")
    args = parser.parse(argv)
    if args.steps < 32:
        raise UserError(f"--steps must be at least 32, got {args.steps}")
    groups = {}
    for name, curves in _measured(args.runs, args.data, args.trainers, args.steps):
        groups[name] = curves
        print(table(name, curves), flush=True)
    if args.json:
        record = {name: {key: curve._asdict() for key, curve in curves.items()} for name, curves in groups.items()}
        Path(args.json).write_text(json.dumps({"gaps": record, "environment": devices.environment()}, indent=2) + "\n")
    if args.figure:
        Path(args.figure).write_text(figure(groups), encoding="utf-8")
    return 0


def _measured(
    pairs: Sequence[str], names: Sequence[str], chosen: Sequence[str], num_steps: int
) -> Iterator[tuple[str, dict[str, Curve]]]:
    """Each kind of data, or pair of runs, with its curves."""
    if pairs:
        yield from ((pair, of_runs(pair)) for pair in pairs)
        return
    for name in names:
        data = DATA[name]
        curves = {}
        found = trainers(data, num_steps)
        for key in chosen:
            curves[key] = curve(data, found[key], num_steps)
            print(f"{name}, {key}: {curves[key].seconds:.0f} s", file=sys.stderr)
        yield name, {**curves, **references(data)}


if __name__ == "__main__":
    cli.run(main, PROG)
