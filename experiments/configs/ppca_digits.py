"""Probabilistic PCA of the embedded 8x8 digits: a Gaussian with a low-rank covariance, trained by gradient.

    python -m experiments.train ppca_digits --workdir runs/ppca_digits

A few seconds on 2 CPU cores. Measured number: see RESULTS.md; none is published for this data.
"""

import dataclasses
import math

import optax

from experiments import config
from experiments.config import Experiment
from experiments.data import Dataset
from experiments.errors import UserError
from jaxgen.bijections import reshape
from jaxgen.models.classical.ppca import ppca
from jaxgen.transforms import dequantize, pull_back


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """Probabilistic PCA."""

    steps: int = 2000
    """Number of training steps in all (a resumed run goes on to this number)."""
    learning_rate: float = 1e-2
    """Step size of the optimiser, Adam."""
    num_latents: int = 10
    """K, the number of latent dimensions."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the model of dequantised, flattened images and its optimiser."""
    if config.conditional:
        raise UserError("ppca cannot be conditioned on labels: leave --conditional away")
    shape = dataset.train.x.shape[1:]
    model = ppca(math.prod(shape), config.num_latents)
    if shape[1:]:
        model = pull_back(model, reshape(shape, (math.prod(shape),)))
    if dataset.num_levels:
        model = dequantize(model, dataset.num_levels)
    return Experiment(model, optax.adam(config.learning_rate))
