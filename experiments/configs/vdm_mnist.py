"""Variational diffusion of 28x28 images, given the digit: a U-Net and its noise schedule, trained on the bound itself.

    python -m experiments.train vdm_mnist --workdir runs/vdm_mnist

Stopped at step 2351, after 10 minutes on one core of an AMD EPYC: a bound of 1.547 bits/dim, 200 images, given the
label (RESULTS.md); no published number is recorded. The bound is of the integers themselves, without dequantisation.
Source: Variational Diffusion Models, https://arxiv.org/abs/2107.00630.
"""

import dataclasses

from experiments import checks, images
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen import paths
from jaxgen.models.diffusion.vdm import levels, vdm

SAMPLING_FIELDS = ("num_evaluations", "num_bound_times")


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """Variational diffusion."""

    gamma_min: float = -13.3
    """-ln SNR of the least noise, at the start of training."""
    num_evaluations: int = 50
    """Evaluations of the network for a sample."""
    num_bound_times: int = 8
    """Evaluations of the network for the bound of an image."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the variational diffusion of raw images; the network predicts v."""
    model = vdm(
        images.unet(config, dataset),
        checks.image_shape(dataset, "this variational diffusion"),
        reconstruction=levels(dataset.num_levels),
        gamma_min=config.gamma_min,
        parametrization=paths.V,
        num_steps=checks.positive(config, "num_evaluations"),
        num_bound_times=checks.positive(config, "num_bound_times"),
    )
    return Experiment(model, images.adam(config))
