"""Diffusion of 28x28 images, given the digit: cosine path, v-prediction, a small U-Net.

    python -m experiments.train diffusion_mnist --workdir runs/diffusion_mnist

See RESULTS.md for minutes, hardware, measured and published numbers. The likelihood is measured twice: the
variational bound, 8 evaluations of the network for each image, and the probability flow, 80 with a derivative each.
"""

import dataclasses
from typing import Any

from experiments import checks, images, samplers
from experiments.config import Experiment
from experiments.data import Dataset
from jaxgen import paths
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.paths import Path
from jaxgen.transforms import probability_flow

SAMPLING_FIELDS = ("sampler", "grid", "num_evaluations", "likelihood_steps")


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """Diffusion."""

    sampler: str = "ddim"
    """Sampler: ddim, ddpm, heun, ... (`experiments.samplers` has them all)."""
    grid: str = "uniform"
    """Times of the sampler: uniform, quadratic, log_snr or karras."""
    num_evaluations: int = 50
    """Evaluations of the network for a sample; a sampler that takes several for a step takes fewer steps."""
    likelihood_steps: int = 20
    """Runge-Kutta steps of the probability flow's likelihood, four evaluations of the network each."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the diffusion model of images scaled to [-1, 1], and its probability flow."""
    return experiment(config, dataset, paths.cosine(), parametrization=paths.V)


def experiment(config: Config, dataset: Dataset, path: Path, **options: Any) -> Experiment:
    """Builds a model of a noise path.

    Args:
        config: sizes of the network, sampler and optimiser.
        dataset: images.
        path: the noise path.
        **options: what else `jaxgen.diffusion` takes: parametrisation, weight, times, coupling.

    Returns:
        The experiment.
    """
    shape, net = checks.image_shape(dataset, "this diffusion"), images.unet(config, dataset)
    stepper, grid = samplers.stepper(config.sampler), samplers.grid(config.grid)
    num_steps = samplers.num_steps(stepper, config.num_evaluations)
    model = diffusion(net, shape, path=path, stepper=stepper, grid=grid, num_steps=num_steps, **options)
    flow = probability_flow(model, path, num_steps=config.likelihood_steps, num_probes=1)
    said = f"probability flow, {config.likelihood_steps} Runge-Kutta steps even in log-SNR, 1 Hutchinson probe"
    return Experiment(
        images.as_reals(model, dataset),
        images.adam(config),
        likelihood=images.as_reals(flow, dataset),
        likelihood_protocol=said,
    )
