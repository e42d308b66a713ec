"""Neural spline flow of points on the plane, from a density whose logarithm is known.

    python -m experiments.train neural_spline_flow_toy --workdir runs/neural_spline_flow_toy

1.5 minutes on one core of an AMD EPYC: -3.557 nats, exact, 1000 test points, where the best possible number, minus the
entropy, is -3.466 (RESULTS.md).
"""

import dataclasses

from experiments import checks, config
from experiments.config import Experiment
from experiments.data import Dataset
from experiments.optimizers import cosine_adam
from jaxgen.models.flows.neural_spline_flow import neural_spline_flow


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """Neural spline flow of vectors, with coupling layers."""

    data: str = "toy_checkerboard"
    """Data set of real vectors; `--help` lists them."""
    steps: int = 5000
    """Number of training steps in all (a resumed run goes on to this number)."""
    batch_size: int = 256
    """Examples per step, over all devices."""
    learning_rate: float = 2e-3
    """Largest step size of Adam, which falls to 0 along a half cosine."""
    num_layers: int = 4
    """Number of coupling layers."""
    width: int = 64
    """Units of each of the two hidden layers of a conditioner."""
    num_bins: int = 16
    """Bins of each spline."""
    bound: float = 4.0
    """Splines act on [-bound, bound], in standard deviations of the first batch."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the flow of vectors and its optimiser."""
    model = neural_spline_flow(
        checks.num_dims(dataset, "this neural spline flow", at_least=2),
        num_layers=config.num_layers,
        features=(config.width, config.width),
        num_bins=config.num_bins,
        bound=config.bound,
        num_classes=checks.num_classes(config, dataset),
    )
    return Experiment(model, cosine_adam(config))
