"""Diffusion of the embedded 8x8 digits, given the digit.

    python -m experiments.train diffusion_digits --workdir runs/diffusion_digits

23 CPU seconds of an AMD EPYC, compiled before: 2.055 bits/dim by the probability flow, all 497 test images, and Fréchet
distance 6.6 in a classifier's features by 50 steps of DDIM, where training images have 9.3; with `--dequantization
variational`, 6 minutes beside other work, 1.979 bits/dim (RESULTS.md). None is published for this data.
"""

import dataclasses

from experiments.configs import diffusion_mnist

SAMPLING_FIELDS, build = diffusion_mnist.SAMPLING_FIELDS, diffusion_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(diffusion_mnist.Config):
    """Diffusion."""

    data: str = "digits"
    """Data set of images; `--help` lists them."""
    steps: int = 1000
    """Number of training steps in all (a resumed run goes on to this number)."""
    ema_decay: float = 0.995
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    levels: int = 2
    """Resolutions at which the U-Net works, each half of the one before."""
