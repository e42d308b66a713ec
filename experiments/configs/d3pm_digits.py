"""D3PM of the embedded 8x8 digits, whose pixels have 17 levels.

    python -m experiments.train d3pm_digits --workdir runs/d3pm_digits

About 4 minutes on one core of an AMD EPYC: a bound of 1.970 bits/dim, all 497 test images; with `--chain absorbing`,
two minutes on one of an Intel Xeon, 1.831 (RESULTS.md). None is published for this data.
"""

import dataclasses

from experiments.configs import d3pm_mnist

SAMPLING_FIELDS, build = d3pm_mnist.SAMPLING_FIELDS, d3pm_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(d3pm_mnist.Config):
    """D3PM."""

    data: str = "digits"
    """Data set of images of few levels; `--help` lists them."""
    steps: int = 2000
    """Number of training steps in all (a resumed run goes on to this number)."""
    ema_decay: float = 0.995
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    levels: int = 2
    """Resolutions at which the U-Net works, each half of the one before."""
    chain: str = "gaussian"
    """How pixels change: absorbing (masks), uniform (any level) or gaussian (levels that are near)."""
