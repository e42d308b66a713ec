"""Real NVP of the embedded 8x8 digits, multi-scale, with uniform dequantisation.

    python -m experiments.train real_nvp_digits --workdir runs/real_nvp_digits

13 CPU seconds of an AMD EPYC, compiled before: 2.056 bits/dim, uniform dequantisation, importance weighted (k = 100),
all 497 test images (RESULTS.md). None is published for this data.
"""

import dataclasses

from experiments.configs import real_nvp_mnist

build = real_nvp_mnist.build


@dataclasses.dataclass(frozen=True)
class Config(real_nvp_mnist.Config):
    """Multi-scale Real NVP."""

    data: str = "digits"
    """Data set of images whose sides are divisible by 4; `--help` lists them."""
    steps: int = 1500
    """Number of training steps in all (a resumed run goes on to this number)."""
    features: int = 16
    """Channels of the hidden layers of each conditioner."""
    num_blocks: int = 1
    """Residual blocks of each conditioner."""
    num_layers: int = 2
    """Coupling layers of each kind (checkerboard, channels) at each scale."""
