"""MeanFlow of 28x28 images, given the digit: a U-Net learns mean velocities, and one step makes an image.

    python -m experiments.train mean_flow_mnist --workdir runs/mean_flow_mnist

4000 steps, 20 minutes on one core of an AMD EPYC: Fréchet distance 24.1 in a classifier's features in one step and 15.8
in two, 1000 samples, where training images have 9.0 (RESULTS.md); none is published in these features. The source
weighs errors (`--power 1 --instant_share 0.75`), which costs half of the accuracy where that can be measured exactly
(`benchmarks/README.md`). Source: Mean Flows for One-step Generative Modeling, https://arxiv.org/abs/2505.13447.
"""

import dataclasses

from experiments import checks, images
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen.models.diffusion.mean_flow import mean_flow
from jaxgen.nets.time import slow_features

SAMPLING_FIELDS = ("num_evaluations",)


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """MeanFlow."""

    instant_share: float = 0.5
    """Share of the batch whose interval of time is empty: ordinary flow matching."""
    power: float = 0.0
    """Errors are divided by this power of themselves; 0 for the plain mean square."""
    slow: bool = True
    """Tell the network the times by slow features."""
    num_evaluations: int = 1
    """Evaluations of the network for a sample."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the MeanFlow model of images scaled to [-1, 1]."""
    net = images.forward_mode(images.unet(config, dataset, features=slow_features if config.slow else None))
    model = mean_flow(
        net,
        checks.image_shape(dataset, "this MeanFlow"),
        instant_share=config.instant_share,
        power=config.power,
        num_steps=checks.positive(config, "num_evaluations"),
    )
    return Experiment(images.as_reals(model, dataset), images.adam(config))
