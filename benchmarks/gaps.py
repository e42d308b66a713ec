"""Teacher gaps: how far samples of few steps are from those of many, from the same noise; a table and a figure."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import checkpoints, samplers, trained
from experiments.errors import UserError
from experiments.sweep import COLOURS
from jaxgen.metrics.kernel import squared_mmd

__all__ = ["Curve", "energy_distance", "figure", "gap", "of_runs", "table"]

NUM_IMAGES = 250
Curves = dict[str, "Curve"]


class Curve(NamedTuple):
    """Gaps along a training, or one gap of what is not trained.

    Attributes:
        steps: training steps behind each; empty for what is not trained.
        gaps: number of evaluations for a sample to gaps, one for each of the steps.
        seconds: what training and measuring took.
        energies: number of evaluations to the energy distance between data and samples of the last parameters, where it
            was measured.
    """

    steps: list[int]
    gaps: dict[int, list[float]]
    seconds: float = 0.0
    energies: dict[int, float] | None = None


def gap(found: Any, target: Any, scale: float) -> float:
    """Root mean square of the difference, in units of `scale`."""
    return float(np.sqrt(((np.asarray(found, float) - np.asarray(target, float)) ** 2).mean()) / scale)


def energy_distance(x: Any, y: Any, scale: float) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, unbiased, in units of `scale`; 0 for equal distributions alone.

    Source: Energy statistics: A class of statistics based on distances, https://doi.org/10.1016/j.jspi.2013.03.018.
    """
    negative = lambda x, y: -jnp.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))  # noqa: E731
    return float(jax.jit(squared_mmd, static_argnums=0)(negative, jnp.asarray(x), jnp.asarray(y)) / scale)


def of_runs(pair: str) -> Curves:
    """The gaps of a student's checkpoints, in one step and in as many as it is configured for, and of its teacher.

    The target is decoded by the teacher's `encoder`. All else is decoded as it is sampled, where that needs no noise:
    the teacher in one step and with half of its evaluations. All decode the same noise, given the same labels, to
    levels of pixels; the scale is their standard deviation in the training data, the root of the mean over pixels of
    the variance.

    Args:
        pair: `STUDENT=TEACHER`, two run directories.

    Raises:
        UserError: if a run cannot be opened or decodes no noise, or the two are not of the same data.
    """
    student_name, equals, teacher_name = pair.partition("=")
    if not equals or not student_name or not teacher_name:
        raise UserError(f"--runs takes STUDENT=TEACHER, two run directories, got {pair!r}")
    start, student = time.perf_counter(), trained.open_trained(student_name)
    teacher = trained.open_trained(teacher_name)
    one: Any = student.run.config
    other: Any = teacher.run.config
    if (one.data, one.conditional) != (other.data, other.conditional):
        raise UserError(f"{student_name} and {teacher_name} are not both of {one.data}, given labels or not")
    scale = float(np.sqrt(student.run.dataset.train.x.astype(np.float32).var(0).mean()))
    exact, steps = _decoder(teacher)(teacher.params), checkpoints.steps(student.run.directory)
    all_params = [trained.open_trained(student_name, str(step)).params for step in steps]
    along = {}
    for num in sorted({_least(one), one.num_evaluations}):
        decode = _decoder(trained.open_trained(student_name, changes=_as_sampled(one, num)))
        along[num] = [gap(decode(params), exact, scale) for params in all_params]
    curves = {Path(student_name).name: Curve(steps, along, time.perf_counter() - start)}
    for num in (_least(other), other.num_evaluations // 2):
        coarse = trained.open_trained(teacher_name, changes=_as_sampled(other, num))
        found = gap(_decoder(coarse)(coarse.params), exact, scale)
        curves[f"{Path(teacher_name).name}, {num} evaluations"] = Curve([], {num: [found]})
    return curves


def _decoding(config: Any) -> str:
    """The sampler by which a run decodes: its own where that needs no noise and has steps of a grid; "" for none."""
    sampler = getattr(config, "sampler", "")
    return sampler if sampler in samplers.ENCODERS else getattr(config, "encoder", "")


def _least(config: Any) -> int:
    """Evaluations of the network for one step."""
    name = _decoding(config)
    return samplers.STEPPERS[name]().num_evaluations if name else 1


def _as_sampled(config: Any, num_evaluations: int) -> list[str]:
    """Changes by which a run decodes with so many evaluations, in steps of `_decoding`."""
    changes, name = [f"num_evaluations={num_evaluations}"], _decoding(config)
    return [*changes, f"encoder={name}", f"sampler={name}"] if name else changes


def _decoder(of: trained.Trained) -> Callable[[Any], Any]:
    """`params -> images` of the noise and the labels that are the same for all."""
    decode, dataset = of.run.experiment.model.decode, of.run.dataset
    if decode is None:
        raise UserError(f"{of.run.directory} is of a model that decodes no noise")
    latent = jax.random.normal(jax.random.key(1), (NUM_IMAGES, *dataset.train.x.shape[1:]))
    labels = jnp.arange(NUM_IMAGES) % dataset.num_classes if trained.conditional(of.run) else None
    return jax.jit(lambda params: decode(params, latent, labels))


def table(group: str, curves: Curves) -> str:
    """One line for each model and number of evaluations; a column for each number of training steps."""
    steps = sorted({step for curve in curves.values() for step in curve.steps})
    measured_too = any(curve.energies for curve in curves.values())
    cells = [[group, "evaluations", *map(str, steps), "seconds", "energy" * measured_too]]
    for name, curve in curves.items():
        for number, (evaluations, gaps) in enumerate(curve.gaps.items()):
            at = dict(zip(curve.steps, gaps, strict=True)) if curve.steps else {steps[-1]: gaps[0]}
            measured = [f"{at[step]:.2g}" if step in at else "" for step in steps]
            seconds = f"{curve.seconds:.0f}" if curve.seconds and not number else ""
            energy = f"{curve.energies[evaluations]:z.3f}" if curve.energies else ""
            cells.append(["" if number else name, str(evaluations or ""), *measured, seconds, energy])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in cells]
    return "\n".join("  ".join(line).rstrip() for line in lines)


def figure(groups: dict[str, Curves]) -> str:
    """A panel for each group: gaps of the first number of evaluations against training steps, as SVG."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4.5 * len(groups), 4.2), layout="constrained")
    names = list(dict.fromkeys(name for curves in groups.values() for name, curve in curves.items() if curve.steps))
    for axes, (group, curves) in zip(drawn.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        for number, name in enumerate(names):
            if name not in curves:
                continue
            curve = curves[name]
            style = {"color": COLOURS[number % len(COLOURS)], "ls": "-" if number < len(COLOURS) else "--"}
            axes.plot(curve.steps, next(iter(curve.gaps.values())), "o", ms=3, label=name, **style)
        for name, curve in curves.items():
            if not curve.steps:
                axes.axhline(next(iter(curve.gaps.values()))[0], color="#999999", lw=1, ls=":", label=name)
        axes.set(title=group, xlabel="training steps", ylabel="teacher gap, one step", yscale="log")
        axes.set_xscale("symlog", linthresh=30)
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
    drawn.axes[0].legend(frameon=False, fontsize=7, handlelength=3.5, labelspacing=0.3)
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
