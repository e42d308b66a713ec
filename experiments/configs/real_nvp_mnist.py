"""Real NVP of 28x28 images, multi-scale, with uniform dequantisation and the paper's logit (alpha = 0.05).

    python -m experiments.train real_nvp_mnist --workdir runs/real_nvp_mnist

See RESULTS.md for minutes, hardware and the measured number. Published for a far larger Real NVP: 1.06 bits/dim
(https://arxiv.org/abs/1810.01367, table 2).
"""

import dataclasses

import optax

from experiments import checks, config
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen.models.flows.real_nvp import real_nvp_image
from jaxgen.transforms import dequantize


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """Multi-scale Real NVP."""

    data: str = "mnist"
    """Data set of images whose sides are divisible by 4; `--help` lists them."""
    steps: int = 4000
    """Number of training steps in all (a resumed run goes on to this number)."""
    batch_size: int = 64
    """Examples per step, over all devices."""
    learning_rate: float = 1e-3
    """Largest step size of Adam, which falls to 0 along a half cosine."""
    ema_decay: float = 0.999
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    features: int = 32
    """Channels of the hidden layers of each conditioner."""
    num_blocks: int = 2
    """Residual blocks of each conditioner."""
    num_layers: int = 4
    """Coupling layers of each kind (checkerboard, channels) at each scale."""
    num_scales: int = 2
    """Number of times that the sides are halved."""
    alpha: float = 0.05
    """The flow models logit(alpha + (1 - 2 alpha) y) of dequantised pixels y in [0, 1]."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the flow of dequantised images and its optimiser."""
    shape = checks.image_shape(dataset, "this Real NVP")
    model = real_nvp_image(
        shape,
        num_scales=config.num_scales,
        num_layers=config.num_layers,
        features=config.features,
        num_blocks=config.num_blocks,
        num_classes=checks.num_classes(config, dataset),
        alpha=config.alpha,
    )
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    return Experiment(dequantize(model, dataset.num_levels), tx)
