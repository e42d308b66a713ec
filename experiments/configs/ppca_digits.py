"""Probabilistic PCA of the embedded 8x8 digits: a Gaussian with a low-rank covariance, trained by gradient.

    python -m experiments.train ppca_digits --workdir runs/ppca_digits

5 seconds on one core of an AMD EPYC: 3.643 bits/dim, uniform dequantisation, importance weighted (k = 100), all 497
test images (RESULTS.md). None is published for this data.
"""

import dataclasses

from experiments.configs import ppca_mnist

build = ppca_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(ppca_mnist.Config):
    """Probabilistic PCA."""

    data: str = "digits"
    """Data set; `--help` lists them."""
    steps: int = 2000
    """Number of training steps in all (a resumed run goes on to this number)."""
    num_latents: int = 10
    """K, the number of latent dimensions."""
