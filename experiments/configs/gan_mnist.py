"""Convolutional GAN of 28x28 images, non-saturating, with the R1 penalty.

    python -m experiments.train gan_mnist --workdir runs/gan_mnist

With `--steps 5000`, 15 CPU minutes of an AMD EPYC: Fréchet distance 3.00 in principal components of the pixels, 1000
samples, where training images have 1.31 (RESULTS.md); none is published in these features. A GAN has no likelihood:
look at the samples, and at the distances between their features and those of the test images.
"""

import dataclasses
import functools

import jax.numpy as jnp
import optax
from flax import linen as nn

from experiments import checks, config, images
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen.models.adversarial.gan import gan, two_player_optimizer
from jaxgen.nets.conv import ConvDecoder, ConvEncoder


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """Convolutional GAN."""

    data: str = "mnist"
    """Data set of images; `--help` lists them."""
    steps: int = 12_000
    """Number of training steps in all (a resumed run goes on to this number)."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints. The loss on the validation part is the sum of both players' and chooses nothing:
    sample and evaluate the newest."""
    batch_size: int = 64
    """Examples per step, over all devices."""
    learning_rate: float = 5e-4
    """Step size of either player's Adam."""
    ema_decay: float = 0.999
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    latent_dim: int = 64
    """K, the number of latent dimensions."""
    width: int = 64
    """Channels of the smallest images inside both networks; each doubling of the sides halves them."""
    r1_weight: float = 1.0
    """gamma, weight of the R1 penalty of the discriminator; 0 leaves it out."""
    generator_every: int = 1
    """k, discriminator updates for each update of the generator."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the GAN of images scaled to [-1, 1], and one optimiser for both players."""
    shape, num_classes = checks.image_shape(dataset, "this GAN"), checks.num_classes(config, dataset)
    features = (config.width, config.width // 2)
    decoder = ConvDecoder(shape, features, num_classes, num_groups=8)
    discriminator = ConvEncoder(features[::-1], 1, num_classes)
    model = gan(nn.Sequential([decoder, jnp.tanh]), discriminator, config.latent_dim, r1_weight=config.r1_weight)
    model = images.as_reals(model, dataset)
    adam = functools.partial(optax.adam, b1=0.5, b2=0.99)
    tx = two_player_optimizer(
        adam(config.learning_rate), adam(config.learning_rate), generator_every=config.generator_every
    )
    return Experiment(model, tx)
