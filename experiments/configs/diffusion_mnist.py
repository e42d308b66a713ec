"""Diffusion of 28x28 images, given the digit: cosine path, v-prediction, a small U-Net.

    python -m experiments.train diffusion_mnist --workdir runs/diffusion_mnist

See RESULTS.md for minutes, hardware, measured and published numbers. The likelihood is measured twice: the
variational bound, 8 evaluations of the network for each image, and the probability flow, 80 with a derivative each.
"""

import dataclasses

import optax

from experiments import checks, config
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen import paths
from jaxgen.bijections import affine
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.nets.unet import UNet
from jaxgen.transforms import dequantize, probability_flow, pull_back


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """Diffusion."""

    data: str = "mnist"
    """Data set of images; `--help` lists them."""
    steps: int = 4000
    """Number of training steps in all (a resumed run goes on to this number)."""
    batch_size: int = 64
    """Examples per step, over all devices."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    ema_decay: float = 0.999
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    conditional: bool = True
    """Condition on the labels."""
    channels: int = 16
    """Channels of the U-Net at full resolution, a multiple of 4; twice as many at each lower one."""
    levels: int = 3
    """Resolutions at which the U-Net works, each half of the one before."""
    num_blocks: int = 1
    """Residual blocks per resolution."""
    num_steps: int = 50
    """Steps of the sampler (DDIM), one evaluation of the network each."""
    likelihood_steps: int = 20
    """Runge-Kutta steps of the probability flow's likelihood, four evaluations of the network each."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the diffusion model of images scaled to [-1, 1], and its probability flow."""
    shape, num_classes = checks.image_shape(dataset, "this diffusion"), checks.num_classes(config, dataset)
    path = paths.cosine()
    net = UNet(config.channels, [2**i for i in range(config.levels)], config.num_blocks, num_classes=num_classes)
    model = diffusion(net, shape, path=path, num_steps=config.num_steps)
    flow = probability_flow(model, path, num_steps=config.likelihood_steps, num_probes=1)
    model, flow = (dequantize(pull_back(model, affine(-1.0, 2.0)), dataset.num_levels) for model in (model, flow))
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))
    said = f"probability flow, {config.likelihood_steps} Runge-Kutta steps even in log-SNR, 1 Hutchinson probe"
    return Experiment(model, tx, likelihood=flow, likelihood_protocol=said)
