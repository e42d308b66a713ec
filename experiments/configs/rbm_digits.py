"""Restricted Boltzmann machine of the embedded 8x8 digits, binarised, by persistent contrastive divergence.

    python -m experiments.train rbm_digits --workdir runs/rbm_digits

Half a minute on one core of an AMD EPYC: -22.32 nats by annealed importance sampling, all 497 test images (RESULTS.md);
none is published for this data. With `--num_hidden 20` or fewer the likelihood is exact.
"""

import dataclasses

from experiments.configs import rbm_mnist

build = rbm_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(rbm_mnist.Config):
    """Restricted Boltzmann machine."""

    data: str = "digits_binary"
    """Data set of binarised images; `--help` lists them."""
    steps: int = 10000
    """Number of training steps in all (a resumed run goes on to this number)."""
    num_hidden: int = 64
    """H, the number of hidden units."""
    ais_steps: int = 5000
    """Temperatures of annealed importance sampling."""
