"""Consistency model in continuous time (sCM) of 28x28 images, given the digit: one step from noise to an image.

    python -m experiments.train continuous_consistency_mnist --workdir runs/scm_mnist --teacher runs/diffusion_mnist
    python -m experiments.train continuous_consistency_mnist --workdir runs/scm_tuned_mnist --start runs/diffusion_mnist
    python -m experiments.train continuous_consistency_mnist --workdir runs/scm_training_mnist

The first distils a run of `diffusion_mnist`; the second starts from its parameters and trains on data alone; the third
has nothing but data. This network is told an angle, by slow features: a run of `diffusion_mnist --parametrization
trigflow` is told the same, so that the first starts from its parameters, too, and the second needs such a one. Source:
Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models, https://arxiv.org/abs/2410.11081.

The first, with such a teacher of 2501 steps and `--steps 1000`, 16 minutes on one core of an Intel Xeon that other work
shared: Fréchet distance 13.2 in a classifier's features in one step and 14.6 in two, 1000 samples, where training
images have 9.0 (RESULTS.md). The second had 24.3 and 27.4 after as many minutes at a constant step size; the first,
with a teacher of the other kind, 44.1 and 39.4 after 4000 steps of 1e-3, an hour on one core of an AMD EPYC, and the
third 95.5 after 1500. None is published in these features.
"""

import dataclasses
from typing import Any

from experiments import checks, images, teachers
from experiments.config import Experiment
from experiments.configs import diffusion_mnist
from experiments.data import Dataset
from experiments.optimizers import cosine_adam
from jaxgen import paths
from jaxgen.models.diffusion.continuous_consistency import continuous_consistency

SAMPLING_FIELDS = ("num_evaluations",)


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """Consistency model in continuous time."""

    steps: int = 2000
    """Number of training steps in all (a resumed run goes on to this number)."""
    learning_rate: float = 3e-4
    """Largest step size of Adam, which falls to 0 along a half cosine."""
    teacher: str = ""
    """Run directory of the diffusion model that is distilled; empty to train on data alone."""
    start: str = ""
    """Run directory of a diffusion model of parametrisation trigflow to start from; as a teacher it is one anyway."""
    warmup: int = 500
    """Steps over which the derivative of the network comes in."""
    offset: float = 0.1
    """Added to the norm by which the tangent is divided; larger follows the tangent's size more closely."""
    time_mean: float = -1.0
    """Mean of ln(sigma / alpha) in training."""
    time_scale: float = 1.4
    """Standard deviation of ln(sigma / alpha) in training."""
    num_evaluations: int = 1
    """Evaluations of the network for a sample."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the consistency model of images scaled to [-1, 1], on the path of `diffusion_mnist`."""
    shape, path = checks.image_shape(dataset, "this consistency model"), paths.cosine()
    prepare, teacher = _training(config, dataset)
    model = continuous_consistency(
        images.forward_mode(images.unet(config, dataset, features=diffusion_mnist.PARAMETRIZATIONS["trigflow"][1])),
        shape,
        path=path,
        times=paths.log_normal_times(mean=config.time_mean, scale=config.time_scale),
        teacher=teacher,
        num_warmup_steps=config.warmup,
        offset=config.offset,
        num_steps=checks.positive(config, "num_evaluations"),
    )
    return Experiment(images.as_reals(model, dataset), cosine_adam(config, max_norm=1.0), prepare=prepare)


def _training(config: Config, dataset: Dataset) -> tuple[Any, Any]:
    """What the first state is prepared with, and the teacher.

    Raises:
        UserError: if there is both a teacher and a start, or the run does not fit.
    """
    trained, flag = teachers.named(config)
    if not trained:
        return None, None
    view = diffusion_mnist.view(config, trained, flag, "trigflow")
    if config.start:
        return teachers.started(trained, at="net"), None
    prepare = teachers.distilled(trained, at="net") if view == "trigflow" else teachers.taught(trained)
    return prepare, diffusion_mnist.teacher(config, dataset, view)
