"""Probabilistic PCA of 28x28 images: a Gaussian with a low-rank covariance, trained by gradient.

    python -m experiments.train ppca_mnist --workdir runs/ppca_mnist

5 CPU minutes of an AMD EPYC: 7.038 bits/dim, uniform dequantisation, importance weighted (k = 100), 1000 test images
(RESULTS.md); no published number is recorded.
"""

import dataclasses
import math

from experiments import checks, config
from experiments.config import Experiment
from experiments.data import Dataset
from experiments.optimizers import cosine_adam
from jaxgen.bijections import reshape
from jaxgen.models.classical.ppca import ppca
from jaxgen.transforms import dequantize, pull_back


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """Probabilistic PCA."""

    data: str = "mnist"
    """Data set; `--help` lists them."""
    steps: int = 5000
    """Number of training steps in all (a resumed run goes on to this number)."""
    learning_rate: float = 1e-2
    """Largest step size of Adam, which falls to 0 along a half cosine."""
    num_latents: int = 50
    """K, the number of latent dimensions."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the model of dequantised, flattened images and its optimiser."""
    checks.unconditional(config, "PPCA")
    shape = dataset.train.x.shape[1:]
    model = ppca(math.prod(shape), config.num_latents)
    if shape[1:]:
        model = pull_back(model, reshape(shape, (math.prod(shape),)))
    if not dataset.num_levels:
        return Experiment(model, cosine_adam(config))
    return Experiment(dequantize(model, dataset.num_levels), cosine_adam(config), protocol="uniform dequantisation")
