"""VAE of the embedded 8x8 digits, binarised anew at every visit.

    python -m experiments.train vae_digits --workdir runs/vae_digits

Half a minute on one core of an AMD EPYC: -22.37 nats, importance weighted (k = 100), all 497 test images (RESULTS.md).
None is published for this data.
"""

import dataclasses

from experiments.configs import vae_mnist

build = vae_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(vae_mnist.Config):
    """Variational autoencoder: Bernoulli pixels where the data is binary, else normal ones of one learned scale."""

    data: str = "digits_binary"
    """Data set of images; `--help` lists them."""
    steps: int = 5000
    """Number of training steps in all (a resumed run goes on to this number)."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints (each with the loss on the validation part)."""
    log_every: int = 100
    """Steps between two lines of metrics."""
    latent_dim: int = 16
    """K, the number of latent dimensions."""
