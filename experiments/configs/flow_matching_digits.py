"""Flow matching of the embedded 8x8 digits, given the digit.

    python -m experiments.train flow_matching_digits --workdir runs/flow_matching_digits
    python -m experiments.train flow_matching_digits --workdir runs/reflow_digits --teacher runs/flow_matching_digits
    python -m experiments.train flow_matching_digits --workdir runs/transported_digits --coupling transport

The second straightens the flow of the first; the third pairs noise and images so that they move less.

23 CPU seconds of an AMD EPYC, compiled before: Fréchet distance 6.5 in a classifier's features by 50 steps of Euler,
497 samples, where training images have 9.3. In one step the first has 22.7, and the second, with `--steps 300` in a
minute and a half of an Intel Xeon, 7.7; the third 17.4, and in two steps 9.3 where the first has 12.0, after some two
minutes of a shared core of an AMD EPYC (RESULTS.md). None is published for this data.
"""

import dataclasses

from experiments.configs import flow_matching_mnist

SAMPLING_FIELDS, build = flow_matching_mnist.SAMPLING_FIELDS, flow_matching_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(flow_matching_mnist.Config):
    """Flow matching."""

    data: str = "digits"
    """Data set of images; `--help` lists them."""
    steps: int = 1000
    """Number of training steps in all (a resumed run goes on to this number)."""
    ema_decay: float = 0.995
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    levels: int = 2
    """Resolutions at which the U-Net works, each half of the one before."""
