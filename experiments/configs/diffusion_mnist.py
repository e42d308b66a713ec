r"""Diffusion of 28x28 images, given the digit: cosine path, v-prediction, a small U-Net.

    python -m experiments.train diffusion_mnist --workdir runs/diffusion_mnist

With `--steps 2895`, 41 CPU minutes of an AMD EPYC: 1.728 bits/dim by the probability flow and a bound of 1.949
bits/dim, 200 images; Fréchet distance 7.98 in a classifier's features by 50 steps of DDIM, 1000 samples, where training
images have 8.6 (RESULTS.md); after all 4000 steps 20 evaluations of `--sampler dormand_prince --tolerance 0.1` have
Fréchet distance 7.61, as 50 of DDIM. The likelihood is measured twice: the variational bound, 8 evaluations of the
network for each image, and the probability flow, 80 with a derivative each.

The published networks of CIFAR-10 are flags away, for an accelerator (traced and counted here, not trained): that of
DDPM++, 61.8 million parameters, is

    python -m experiments.train diffusion_mnist --data cifar10 --conditional False --channels 128 --levels 4 \
        --multipliers 1,2,2,2 --num-blocks 4 --attention-at 1 --style ddpm++ --dtype bfloat16 --remat True \
        --batch-size 128 --learning-rate 2e-4 --ema-decay 0.9999 --steps 500000 --workdir runs/ddpm_plus
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from experiments import checks, images, samplers, teachers
from experiments.config import Experiment
from experiments.data import Dataset
from experiments.errors import UserError
from jaxgen import paths
from jaxgen.core import Model
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.nets.time import slow_features
from jaxgen.paths import Parametrization, Path
from jaxgen.transforms import classifier_free_guidance, drop_condition, probability_flow, resample

SAMPLING_FIELDS = (
    "sampler",
    "grid",
    "num_evaluations",
    "tolerance",
    "encoder",
    "guidance",
    "guidance_at",
    "likelihood_steps",
)
PARAMETRIZATIONS: dict[str, tuple[Parametrization, Callable[..., Any] | None]] = {
    "v": (paths.V, None),
    "trigflow": (paths.trigflow(), slow_features),
}
"""What a network predicts, and its features of the noise level where they are not those of its style."""
NOISE = {"features": 16, "num_blocks": 2}
"""The network that shapes the noise within a pixel's level."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Fields of guidance, samples and likelihood, and of what training prepares for them."""

    sampler: str = "ddim"
    """Sampler: ddim, ddpm, heun, ... (`experiments.samplers` has them all), or dormand_prince for adaptive steps."""
    grid: str = "uniform"
    """Times of the sampler: uniform, quadratic, log_snr or karras."""
    num_evaluations: int = 50
    """Evaluations of the network for a sample; a sampler that takes several for a step takes fewer steps."""
    tolerance: float = 1e-3
    """Error that the sampler dormand_prince allows in a step, relative and absolute."""
    encoder: str = "heun"
    """Sampler of `encode` and `decode`, one without noise: ddim, euler, heun, dpm_solver_2m, unipc, ..."""
    dequantization: str = "uniform"
    """Noise within a pixel's level: uniform, or variational, shaped by a network that is trained by the bound."""
    condition_dropout: float = 0.0
    """Share of the labels that are left out in training, so that samples can be guided; 0.1 to 0.2 is usual."""
    guidance: float = 1.0
    """Scale of classifier-free guidance; 1 for none. A guided step takes one evaluation with and one without label."""
    guidance_at: str = ""
    """Lowest and highest noise level sigma / alpha at which to guide, "0.2,5"; empty for all."""
    likelihood_steps: int = 20
    """Runge-Kutta steps of the probability flow's likelihood, four evaluations of the network each."""


@dataclasses.dataclass(frozen=True)
class Config(Sampling, images.Config):
    """Diffusion."""

    parametrization: str = "v"
    """What the network predicts: v, or trigflow, from whose parameters continuous_consistency_mnist can start."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the diffusion model of images scaled to [-1, 1], and its probability flow."""
    parametrization, features = checks.one_of(config, "parametrization", PARAMETRIZATIONS)
    network = functools.partial(images.unet, features=features)
    return experiment(config, dataset, paths.cosine(), network=network, parametrization=parametrization)


def view(config: Any, trained: str, flag: str, own: str) -> str:
    """What the network of a run predicts that teaches another config, or from which it starts.

    Args:
        config: the student's, with the same network.
        trained: the run's directory.
        flag: the one that named it; by "start" the run must have the student's own view.
        own: that view.

    Raises:
        UserError: if the run does not fit.
    """
    network = {name: getattr(config, name) for name in images.NETWORK}
    needed = {**images.UNIFORM, "condition_dropout": 0.0, **({"parametrization": own} if flag == "start" else {})}
    return teachers.check(trained, ("diffusion",), network, needed=needed, flag=flag).parametrization


def teacher(config: Any, dataset: Dataset, parametrization: str) -> Model:
    """The diffusion model of a run of this config, by what its network predicts, as another config builds it again."""
    found, features = PARAMETRIZATIONS[parametrization]
    shape, net = checks.image_shape(dataset, "this teacher"), images.unet(config, dataset, features=features)
    return diffusion(net, shape, path=paths.cosine(), parametrization=found)


def experiment(
    config: Any, dataset: Dataset, path: Path, *, network: Callable[..., Any] = images.unet, **options: Any
) -> Experiment:
    """Builds a model of a noise path.

    Args:
        config: sizes of the network, sampler and optimiser.
        dataset: images.
        path: the noise path.
        network: `(config, dataset, *, num_nulls) -> module`.
        **options: what else `jaxgen.diffusion` takes: parametrisation, weight, times, coupling.

    Returns:
        The experiment.
    """
    shape = checks.image_shape(dataset, "this diffusion")
    net = network(config, dataset, num_nulls=int(config.condition_dropout > 0))
    sampling = samplers.options(config)
    options |= {"path": path, **sampling}
    model = samplers.adaptive(diffusion(net, shape, **options), path, config)
    differentiable = diffusion(images.forward_mode(net), shape, **options)
    steps = checks.positive(config, "likelihood_steps")
    flow = probability_flow(differentiable, path, num_steps=steps, num_probes=1)
    if config.condition_dropout or config.guidance != 1:
        _check_guided(config)
        model = drop_condition(model, config.condition_dropout, null=dataset.num_classes)
    solver = f"probability flow, {steps} Runge-Kutta steps even in log-SNR, 1 Hutchinson probe"
    if config.guidance != 1:
        guiding: dict[str, Any] = {"scale": config.guidance, "interval": _interval(config)}
        guided = classifier_free_guidance(model, path, null=dataset.num_classes, **guiding)
        model = model._replace(sample=samplers.adaptive(resample(guided, path, **sampling), path, config).sample)
    noise, protocol = images.learned_noise(config, dataset, **NOISE), images.noise_protocol(config)
    return Experiment(
        images.as_reals(model, dataset, noise, judge=diffusion(net, shape, **options | {"num_bound_times": 1})),
        images.adam(config, noise),
        protocol=protocol,
        likelihood=images.as_reals(flow, dataset, noise),
        likelihood_protocol=f"{solver}, {protocol}",
    )


def _interval(config: Any) -> tuple[float, ...] | None:
    """The noise levels between which samples are guided; `None` for all."""
    legal = lambda found: not found or (len(found) == 2 and 0 <= found[0] < found[1])  # noqa: E731
    return checks.numbers(config, "guidance_at", float, legal, "two noise levels, the higher one last") or None


def _check_guided(config: Any) -> None:
    if not config.conditional:
        raise UserError("--guidance and --condition-dropout need labels: pass --conditional True")
    if not 0 < config.condition_dropout < 1:
        raise UserError(f"--guidance needs a --condition-dropout between 0 and 1, got {config.condition_dropout}")
