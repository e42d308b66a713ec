"""Flow matching of 28x28 images, given the digit: straight paths from noise to data, a small U-Net.

    python -m experiments.train flow_matching_mnist --workdir runs/flow_matching_mnist

See RESULTS.md for minutes, hardware and measured numbers. Source: Flow Matching for Generative Modeling,
https://arxiv.org/abs/2210.02747.
"""

import dataclasses

from experiments.config import Experiment
from experiments.configs import diffusion_mnist
from experiments.data import Dataset
from jaxgen import paths

SAMPLING_FIELDS = diffusion_mnist.SAMPLING_FIELDS


@dataclasses.dataclass(frozen=True)
class Config(diffusion_mnist.Config):
    """Flow matching."""

    sampler: str = "euler"
    """Sampler: euler, heun, ... (`experiments.samplers` has them all)."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the flow of images scaled to [-1, 1]."""
    return diffusion_mnist.experiment(config, dataset, paths.linear(), parametrization=paths.VELOCITY)
