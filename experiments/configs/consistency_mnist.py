"""Consistency model of 28x28 images, given the digit: one step from noise to an image.

    python -m experiments.train consistency_mnist --workdir runs/consistency_mnist --teacher runs/diffusion_mnist
    python -m experiments.train consistency_mnist --workdir runs/consistency_training_mnist

The first distils a run of `diffusion_mnist`, from whose parameters it also starts; the second trains on data alone. See
RESULTS.md for minutes, hardware and measured numbers.
"""

import dataclasses
from typing import Any

from experiments import checks, images, teachers
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen import paths
from jaxgen.models.diffusion.consistency import consistency
from jaxgen.models.diffusion.diffusion import diffusion

SAMPLING_FIELDS = ("num_evaluations",)
NETWORK = ("data", "channels", "levels", "num_blocks", "conditional")


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """Consistency model."""

    steps: int = 2000
    """Number of training steps in all (a resumed run goes on to this number)."""
    learning_rate: float = 3e-4
    """Step size of Adam."""
    teacher: str = ""
    """Run directory of the diffusion model that is distilled; empty to train on data alone."""
    num_intervals: int = 40
    """Intervals of the grid whose neighbours are compared; without a teacher, their number at the end of training."""
    num_evaluations: int = 1
    """Evaluations of the network for a sample."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the consistency model of images scaled to [-1, 1], on the path and in the view of `diffusion_mnist`."""
    shape, net = checks.image_shape(dataset, "this consistency model"), images.unet(config, dataset)
    path, first, last = paths.cosine(), min(10, config.num_intervals), config.num_intervals
    options: dict[str, Any] = {"path": path, "parametrization": paths.V, "num_steps": config.num_evaluations}
    if config.teacher:
        teachers.check(config.teacher, ("diffusion",), {name: getattr(config, name) for name in NETWORK})
        teacher = diffusion(net, shape, path=path, parametrization=paths.V)
        model = consistency(net, shape, pairs=paths.log_normal_pairs(last), teacher=teacher, **options)
    else:
        doubling = paths.doubling(config.steps, first=first, last=last)
        model = consistency(net, shape, pairs=paths.log_normal_pairs(doubling), **options)
    prepare = teachers.distilled(config.teacher) if config.teacher else None
    return Experiment(images.as_reals(model, dataset), images.adam(config), prepare=prepare)
