"""Diffusion of the embedded 8x8 digits by a transformer, given the digit.

    python -m experiments.train dit_digits --workdir runs/dit_digits

About 3 minutes on one core of an AMD EPYC: 2.014 bits/dim by the probability flow, all 497 test images, and Fréchet
distance 6.6 in a classifier's features by 50 steps of DDIM, where training images have 9.3 (RESULTS.md). None is
published for this data.
"""

import dataclasses

from experiments.configs import dit_mnist

SAMPLING_FIELDS, build = dit_mnist.SAMPLING_FIELDS, dit_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(dit_mnist.Config):
    """Diffusion."""

    data: str = "digits"
    """Data set of images; `--help` lists them."""
    steps: int = 2000
    """Number of training steps in all (a resumed run goes on to this number)."""
    ema_decay: float = 0.995
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
