"""Masked autoregressive flow of tables of measurements.

    python -m experiments.train maf_uci --workdir runs/maf_uci
    python -m experiments.evaluate runs/maf_uci --num all --checkpoint best
    python -m experiments.train maf_uci --data uci_wine_red --width 64 --steps 1500 --workdir runs/red

1 minute and half a minute on one core of an AMD EPYC: -4.81 nats on MAGIC and -9.74 nats on the red wines, exact, all
test rows; others in RESULTS.md. Published are ten-fold averages, such as -8.76 nats on the red wines by an ensemble of
deep NADEs (https://arxiv.org/abs/1310.1757); the split here is one, see the protocol of the data.
"""

import dataclasses

from experiments import checks, config
from experiments.config import Experiment
from experiments.data import Dataset
from experiments.optimizers import cosine_adam
from jaxgen.models.flows.maf import maf


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """Masked autoregressive flow of vectors."""

    data: str = "uci_magic"
    """Data set of real vectors; `--help` lists them."""
    steps: int = 4000
    """Number of training steps in all (a resumed run goes on to this number)."""
    batch_size: int = 256
    """Examples per step, over all devices."""
    learning_rate: float = 1e-3
    """Largest step size of Adam, which falls to 0 along a half cosine."""
    ema_decay: float = 0.99
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    weight_decay: float = 1e-2
    """Decay of the parameters, of AdamW."""
    num_layers: int = 5
    """Number of autoregressive layers."""
    width: int = 128
    """Units of each of the two hidden layers of a network."""
    max_log_scale: float = 0.5
    """Soft bound of the logarithm of a layer's scales; without one, rows far from all others ruin the mean."""
    checkpoint_every: int = 50
    """Steps between two checkpoints (each with the loss on the validation part)."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the flow of vectors and its optimiser."""
    model = maf(
        checks.num_dims(dataset, "this masked autoregressive flow"),
        num_layers=config.num_layers,
        features=(config.width, config.width),
        num_classes=checks.num_classes(config, dataset),
        max_log_scale=config.max_log_scale,
    )
    return Experiment(model, cosine_adam(config, weight_decay=config.weight_decay))
