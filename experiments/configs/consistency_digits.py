"""Consistency model of the embedded 8x8 digits, given the digit.

    python -m experiments.train consistency_digits --workdir runs/consistency_digits --teacher runs/diffusion_digits
    python -m experiments.train consistency_digits --workdir runs/consistency_tuned_digits --start runs/diffusion_digits

In a classifier's features, 497 samples, where training images have 9.3: Fréchet distance 18.6 in one step and 10.9 in
two when distilled, 43 CPU seconds of an AMD EPYC, compiled before; 17.9 and 11.5 when tuned with `--steps 2000`; 23.3
and 11.0 on data alone with `--steps 2000 --learning_rate 1e-3` (RESULTS.md). None is published for this data.
"""

import dataclasses

from experiments.configs import consistency_mnist

SAMPLING_FIELDS, build = consistency_mnist.SAMPLING_FIELDS, consistency_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(consistency_mnist.Config):
    """Consistency model."""

    data: str = "digits"
    """Data set of images; `--help` lists them."""
    steps: int = 1000
    """Number of training steps in all (a resumed run goes on to this number)."""
    ema_decay: float = 0.995
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    levels: int = 2
    """Resolutions at which the U-Net works, each half of the one before."""
