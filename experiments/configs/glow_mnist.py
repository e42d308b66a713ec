"""Glow of 28x28 images, with uniform dequantisation and the logit of Real NVP (alpha = 0.05).

    python -m experiments.train glow_mnist --steps 8000 --workdir runs/glow_mnist
    python -m experiments.train glow_mnist --num-bins 8 --features 32 --steps 3000 --workdir runs/spline_flow_mnist

The second has splines in its couplings, a neural spline flow.

The first, 27 minutes on one core of an AMD EPYC: 1.332 bits/dim by a single draw of the dequantisation, and 1.306
importance weighted (k = 20), 500 images; the second, 22 minutes: 1.404 and 1.374 bits/dim (RESULTS.md). Published for a
far larger Glow, by a single draw as it seems: 1.05 bits/dim (https://arxiv.org/abs/1810.01367, table 2).
"""

import dataclasses

from experiments import checks, images
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen.bijections import rational_quadratic_spline, scale_shift
from jaxgen.models.flows.glow import glow


@dataclasses.dataclass(frozen=True)
class Config(images.Flow):
    """Multi-scale Glow."""

    features: int = 48
    """Channels of the hidden layers of each conditioner."""
    num_blocks: int = 1
    """Residual blocks of each conditioner."""
    num_steps: int = 8
    """Steps (activation normalisation, 1x1 convolution, coupling) at each scale."""
    num_bins: int = 0
    """Bins of the splines in the couplings (a neural spline flow of images); 0 for affine couplings."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the flow of dequantised images and its optimiser."""
    model = glow(
        checks.image_shape(dataset, "this Glow"),
        num_scales=config.num_scales,
        num_steps=config.num_steps,
        features=config.features,
        num_blocks=config.num_blocks,
        num_classes=checks.num_classes(config, dataset),
        alpha=config.alpha,
        elementwise=rational_quadratic_spline(config.num_bins) if config.num_bins else scale_shift(),
    )
    return images.flow_experiment(model, dataset, config)
