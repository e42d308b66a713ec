"""Shortcut model of 28x28 images, given the digit: one network for 1, 2, 4 .. steps from noise to an image.

    python -m experiments.train shortcut_mnist --workdir runs/shortcut_mnist

No run of it is recorded yet. Source: One Step Diffusion via Shortcut Models,
https://arxiv.org/abs/2410.12557.
"""

import dataclasses

from experiments import checks, images
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen.models.diffusion.shortcut import shortcut

SAMPLING_FIELDS = ("num_evaluations",)


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """Shortcut model."""

    shortcut_share: float = 0.25
    """Share of the batch that learns a step from two of half its length; the rest is flow matching."""
    num_evaluations: int = 1
    """Evaluations of the network for a sample: a power of two, at most 64."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the shortcut model of images scaled to [-1, 1]; its targets are made by the averaged parameters."""
    shape, net = checks.image_shape(dataset, "this shortcut model"), images.unet(config, dataset)
    model = shortcut(
        net,
        shape,
        shortcut_share=config.shortcut_share,
        target_decay=config.ema_decay,
        num_steps=config.num_evaluations,
    )
    return Experiment(images.as_reals(model, dataset), images.adam(config))
