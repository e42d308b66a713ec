"""Consistency model in continuous time (sCM) of the embedded 8x8 digits, given the digit.

    python -m experiments.train continuous_consistency_digits --workdir runs/scm_digits --teacher runs/diffusion_digits

About 10 minutes on one core of an Intel Xeon that other work shared, from the parameters of its teacher, a run of
`diffusion_digits --parametrization trigflow`: Fréchet distance 7.4 in a classifier's features in one step, 497 samples,
where training images have 9.3 (RESULTS.md). None is published for this data.
"""

import dataclasses

from experiments.configs import continuous_consistency_mnist

SAMPLING_FIELDS, build = continuous_consistency_mnist.SAMPLING_FIELDS, continuous_consistency_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(continuous_consistency_mnist.Config):
    """Consistency model in continuous time."""

    data: str = "digits"
    """Data set of images; `--help` lists them."""
    steps: int = 2000
    """Number of training steps in all (a resumed run goes on to this number)."""
    ema_decay: float = 0.995
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    levels: int = 2
    """Resolutions at which the U-Net works, each half of the one before."""
