"""D3PM of binarised 28x28 images: pixels change by a chain in discrete time, and a U-Net guesses what they were.

    python -m experiments.train d3pm_mnist --workdir runs/d3pm_mnist

With `--steps 1000`, 9 minutes on one core of an Intel Xeon: a bound of -89.3 nats, 200 images, dynamic binarisation
(RESULTS.md), in nats as for masked diffusion; none is published for this protocol. Source: Structured Denoising
Diffusion Models in Discrete State-Spaces, https://arxiv.org/abs/2107.03006.
"""

import dataclasses
from collections.abc import Callable

from experiments import checks, images
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen.models.diffusion.d3pm import d3pm
from jaxgen.nets.tokens import TokenNet
from jaxgen.paths.transitions import Transitions, absorbing, gaussian, uniform

SAMPLING_FIELDS = ("num_bound_times",)


def _gaussian(num_levels: int, num_steps: int) -> Transitions:
    """The paper's betas are for 1000 steps; fewer are as much larger."""
    return gaussian(num_levels, num_steps, beta_min=0.1 / num_steps, beta_max=20 / num_steps)


CHAINS: dict[str, Callable[[int, int], Transitions]] = {
    "absorbing": absorbing,
    "uniform": uniform,
    "gaussian": _gaussian,
}


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """D3PM."""

    data: str = "mnist_binary"
    """Data set of images of few levels; `--help` lists them."""
    conditional: bool = False
    """Condition on the labels."""
    chain: str = "uniform"
    """How pixels change: absorbing (masks), uniform (any level) or gaussian (levels that are near)."""
    chain_steps: int = 100
    """Steps of the chain, each an evaluation of the network for a sample."""
    width: int = 8
    """Length of the vector that stands for a pixel's level."""
    num_bound_times: int = 8
    """Evaluations of the network for the bound of an image."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the D3PM of raw images.

    Raises:
        UserError: if there is no such chain, or the data are not images of integer levels.
    """
    shape = checks.image_shape(dataset, "this D3PM")
    transitions = checks.one_of(config, "chain", CHAINS)(dataset.num_levels, checks.positive(config, "chain_steps"))
    net = TokenNet(images.unet(config, dataset), dataset.num_levels, transitions.num_states, width=config.width)
    model = d3pm(net, shape, transitions, num_bound_times=checks.positive(config, "num_bound_times"))
    return Experiment(model, images.adam(config))
