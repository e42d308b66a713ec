"""Consistency model of 28x28 images, given the digit: one step from noise to an image.

    python -m experiments.train consistency_mnist --workdir runs/consistency_mnist --teacher runs/diffusion_mnist
    python -m experiments.train consistency_mnist --workdir runs/consistency_tuned_mnist --start runs/diffusion_mnist
    python -m experiments.train consistency_mnist --workdir runs/consistency_training_mnist

The first distils a run of `diffusion_mnist`, from whose parameters it also starts; the second starts from them too, but
trains on data alone (easy consistency tuning, https://arxiv.org/abs/2406.14548); the third has nothing but data. A
teacher in the view `trigflow` is told the noise by other features, so that its student starts from nothing.

In a classifier's features, 1000 samples: Fréchet distance 15.1 in one step and 11.5 in two when distilled with `--steps
1500`, 34 CPU minutes of an AMD EPYC, where training images have 8.6; 34.2 and 18.8 on data alone with `--steps 5000
--learning_rate 1e-3`, 25 minutes on one core of another, where they have 9.0. Tuned with `--steps 1600
--learning_rate 1e-3`, 28 minutes of a shared core: 29.1 and 26.7, 500 samples, where training images have 15.7
(RESULTS.md). None is published in these features.
"""

import dataclasses
from typing import Any

from experiments import checks, images, samplers, teachers
from experiments.config import Experiment
from experiments.configs import diffusion_mnist
from experiments.data import Dataset
from experiments.optimizers import cosine_adam
from jaxgen import paths
from jaxgen.models.diffusion.consistency import consistency

SAMPLING_FIELDS = ("num_evaluations",)


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """Consistency model."""

    steps: int = 2000
    """Number of training steps in all (a resumed run goes on to this number)."""
    learning_rate: float = 3e-4
    """Step size of Adam; in tuning the largest, which falls to 0 along a half cosine."""
    teacher: str = ""
    """Run directory of the diffusion model that is distilled; empty to train on data alone."""
    teacher_sampler: str = "heun"
    """Sampler, one without noise, whose single step leads from a time of the teacher's path to its neighbour."""
    start: str = ""
    """Run directory of a diffusion model to start from, for easy consistency tuning; a teacher is one anyway."""
    num_intervals: int = 40
    """Intervals of the grid whose neighbours are compared; in training on data alone their number at its end."""
    num_stages: int = 8
    """Stages of tuning, each with half the gap between neighbours of the one before."""
    num_evaluations: int = 1
    """Evaluations of the network for a sample."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the consistency model of images scaled to [-1, 1], on the path and in the view of `diffusion_mnist`."""
    shape, net = checks.image_shape(dataset, "this consistency model"), images.unet(config, dataset)
    steps = checks.positive(config, "num_evaluations")
    prepare, how = _training(config, dataset)
    model = consistency(net, shape, path=paths.cosine(), parametrization=paths.V, num_steps=steps, **how)
    tx = cosine_adam(config, max_norm=1.0) if config.start else images.adam(config)
    return Experiment(images.as_reals(model, dataset), tx, prepare=prepare)


def _training(config: Config, dataset: Dataset) -> tuple[Any, dict[str, Any]]:
    """What the first state is prepared with, and the pairs, the teacher and its stepper.

    Raises:
        UserError: if there is both a teacher and a start, the run does not fit, or a name or number is illegal.
    """
    stages, last = checks.positive(config, "num_stages"), checks.positive(config, "num_intervals")
    stepper = checks.one_of(config, "teacher_sampler", {name: samplers.STEPPERS[name] for name in samplers.ENCODERS})
    trained, flag = teachers.named(config)
    view = diffusion_mnist.view(config, trained, flag, "v") if trained else "v"
    if config.teacher:
        prepare = teachers.distilled(trained) if view == "v" else teachers.taught(trained)
        teacher = diffusion_mnist.teacher(config, dataset, view)
        return prepare, {"pairs": paths.log_normal_pairs(last), "teacher": teacher, "teacher_stepper": stepper()}
    if config.start:
        return teachers.started(trained), {"pairs": paths.tuning_pairs(-(-config.steps // stages))}
    doubling = paths.doubling(config.steps, first=min(10, last), last=last)
    return None, {"pairs": paths.log_normal_pairs(doubling)}
