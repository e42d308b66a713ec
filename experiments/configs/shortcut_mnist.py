"""Shortcut model of 28x28 images, given the digit: one network for 1, 2, 4 .. steps from noise to an image.

    python -m experiments.train shortcut_mnist --workdir runs/shortcut_mnist

47 minutes on one core of an AMD EPYC: Fréchet distance 25.8 in a classifier's features in one step, 19.0 in two and
14.3 in eight, 500 samples, where training images have 15.7 (RESULTS.md); none is published in these features. Seven
lengths of steps are learnt one from the other through an average of the parameters: a dozen of its time constants, 1 /
(1 - target_decay) steps each, were too few (`--steps 900 --ema-decay 0.99`: 189.7 in one step). Source: One Step
Diffusion via Shortcut Models, https://arxiv.org/abs/2410.12557.
"""

import dataclasses

from experiments import checks, images
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen.models.diffusion.shortcut import shortcut

SAMPLING_FIELDS = ("num_evaluations",)

_NUM_STEPS = tuple(2**k for k in range(7))


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """Shortcut model."""

    shortcut_share: float = 0.25
    """Share of the batch that learns a step from two of half its length; the rest is flow matching."""
    target_decay: float = 0.99
    """Decay of the average that makes the targets of long steps, which are learnt from each other, shortest first."""
    num_evaluations: int = 1
    """Evaluations of the network for a sample: a power of two, at most 64."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the shortcut model of images scaled to [-1, 1]."""
    shape, net = checks.image_shape(dataset, "this shortcut model"), images.unet(config, dataset)
    model = shortcut(
        net,
        shape,
        shortcut_share=config.shortcut_share,
        target_decay=config.target_decay,
        num_steps=checks.legal(config, "num_evaluations", _NUM_STEPS.__contains__, "a power of two, at most 64"),
        num_levels=len(_NUM_STEPS),
    )
    return Experiment(images.as_reals(model, dataset), images.adam(config))
