"""What the configs of images share: fields, a U-Net, images as reals in [-1, 1], and Adam."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import optax

from experiments import checks, config
from experiments.config import Experiment
from experiments.data import Dataset
from experiments.devices import attend_fused
from experiments.errors import UserError
from experiments.optimizers import cosine_adam
from jaxgen.bijections import Bijection, affine, scale_shift
from jaxgen.core import Model
from jaxgen.nets.attention import attend
from jaxgen.nets.blocks import ADM, DDPM, DDPM_PLUS, NCSN_PLUS, Style
from jaxgen.nets.resnet import ResNet
from jaxgen.nets.unet import UNet
from jaxgen.transforms import dequantize, pull_back, shape_noise, variational_dequantize

__all__ = [
    "Compute",
    "Config",
    "Flow",
    "Training",
    "adam",
    "as_levels",
    "as_reals",
    "computed",
    "flow_experiment",
    "forward_mode",
    "learned_noise",
    "noise_protocol",
    "unet",
]


STYLES: dict[str, Style] = {"ddpm": DDPM, "ddpm++": DDPM_PLUS, "ncsn++": NCSN_PLUS, "adm": ADM}
NETWORK = ("data", "channels", "levels", "num_blocks", "multipliers", "attention_at", "style", "conditional")
"""Fields in which a student must agree with its teacher: those that the parameters depend on."""
UNIFORM = {"dequantization": "uniform"}
"""What a teacher must have, whose parameters are those of its network alone."""


@dataclasses.dataclass(frozen=True)
class Training(config.Config):
    """Fields of the training of any network of images."""

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


@dataclasses.dataclass(frozen=True)
class Compute:
    """Fields of how a network is computed, none of which changes its parameters."""

    dtype: str = "float32"
    """Type of the computation, float32 or bfloat16; parameters are float32."""
    remat: bool = False
    """Compute the inside of blocks again in the backward pass, for less memory."""
    fused: bool = False
    """Fused attention of an NVIDIA GPU, in bfloat16 and for heads of up to 128 (MeanFlow and sCM cannot use it)."""


@dataclasses.dataclass(frozen=True)
class Config(Compute, Training):
    """Fields of a U-Net and its training."""

    channels: int = 16
    """Channels of the U-Net at full resolution, a multiple of 4; twice as many at each lower one."""
    levels: int = 3
    """Resolutions at which the U-Net works, each half of the one before."""
    num_blocks: int = 1
    """Residual blocks per resolution."""
    multipliers: str = ""
    """Widths of the resolutions in units of the channels, "1,2,2,2"; empty for 1, 2, 4 and so on."""
    attention_at: str = ""
    """Resolutions with self-attention besides the lowest, "1" or "1,2", the first being 0; empty for none."""
    style: str = "ddpm"
    """How blocks are built: ddpm, ddpm++, ncsn++ or adm."""


@dataclasses.dataclass(frozen=True)
class Flow(Training):
    """Fields of a multi-scale flow of images and its training."""

    data: str = "mnist"
    """Data set of images whose sides are divisible by 4; `--help` lists them."""
    learning_rate: float = 1e-3
    """Largest step size of Adam, which falls to 0 along a half cosine."""
    conditional: bool = False
    """Condition on the labels."""
    features: int = 32
    """Channels of the hidden layers of each conditioner."""
    num_blocks: int = 2
    """Residual blocks of each conditioner."""
    num_scales: int = 2
    """Number of times that the sides are halved."""
    alpha: float = 0.05
    """The flow models logit(alpha + (1 - 2 alpha) y) of dequantised pixels y in [0, 1]."""
    dequantization: str = "uniform"
    """Noise within a pixel's level: uniform, or variational, shaped by a network of the size of a conditioner."""


def unet(
    config: Config, dataset: Dataset, *, num_nulls: int = 0, features: Callable[[Any, int], Any] | None = None
) -> UNet:
    """The U-Net of a config.

    Args:
        config: its sizes.
        dataset: images; their labels where the config is conditional.
        num_nulls: labels besides those of the data, which stand for none.
        features: of the noise level or the times, `(t, num) -> [n, num]`; those of the style by default.

    Raises:
        UserError: if the config asks for labels that the data does not have, or a name or list cannot be read.
    """
    classes = checks.num_classes(config, dataset)
    num_classes = classes + num_nulls if classes else 0
    multipliers = _integers(config, "multipliers", least=1) or tuple(2**i for i in range(config.levels))
    if len(multipliers) != config.levels:
        raise UserError(f"--multipliers must be {config.levels} numbers, as --levels, got {config.multipliers!r}")
    style = checks.one_of(config, "style", STYLES)
    return UNet(
        config.channels,
        multipliers,
        config.num_blocks,
        _integers(config, "attention_at", least=0),
        num_classes=num_classes,
        style=style._replace(features=features) if features else style,
        **computed(config),
    )


def computed(config: Compute) -> dict[str, Any]:
    """Fields of a network that say how it is computed.

    Raises:
        UserError: if the type is unknown.
    """
    attention = attend_fused if config.fused else attend
    return {"dtype": checks.dtype(config), "remat": config.remat, "attention": attention}


def forward_mode(net: Any) -> Any:
    """The same network, with an attention that has derivatives of both modes."""
    return net.clone(attention=attend)


def _integers(config: Config, field: str, *, least: int) -> tuple[int, ...]:
    expected = f"integers of at least {least} with commas between"
    return checks.numbers(config, field, int, lambda found: all(number >= least for number in found), expected)


def learned_noise(config: Any, dataset: Dataset, *, features: int, num_blocks: int) -> Bijection | None:
    """The noise within a pixel's level that a config names: one that a network shapes, or `None`, uniform noise.

    Args:
        config: has the fields `dequantization` and `conditional`.
        dataset: images; their labels where the config is conditional.
        features: channels of the hidden layers of the network.
        num_blocks: its residual blocks.

    Raises:
        UserError: if there is no such noise.
    """
    if not checks.one_of(config, "dequantization", {"uniform": False, "variational": True}):
        return None
    classes, outputs = checks.num_classes(config, dataset), scale_shift().num_params * dataset.train.x.shape[-1]
    return shape_noise(ResNet(features, outputs, num_blocks, classes, zero_init=True))


def noise_protocol(config: Any) -> str:
    """The part of a protocol that tells the noise within a pixel's level."""
    return f"{config.dequantization} dequantisation"


def as_levels(model: Model, dataset: Dataset, noise: Bijection | None = None, judge: Model | None = None) -> Model:
    """A model of raw images, of one of reals in [0, 1): with noise that is learned by a judge, or uniform noise."""
    if noise is None:
        return dequantize(model, dataset.num_levels)
    return variational_dequantize(model, dataset.num_levels, noise, judge=judge)


def as_reals(model: Model, dataset: Dataset, noise: Bijection | None = None, judge: Model | None = None) -> Model:
    """The same of a model, and a judge, of reals in [-1, 1]."""
    scaled = functools.partial(pull_back, bijection=affine(-1.0, 2.0))
    return as_levels(scaled(model), dataset, noise, judge and scaled(judge))


def adam(config: Training, noise: Bijection | None = None) -> optax.GradientTransformation:
    """Adam at a constant step size, gradients clipped to norm 1; those of learned noise by themselves.

    They are of nats of a whole image, beside which those of a squared error of its pixels are small.
    """
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))
    return tx if noise is None else optax.partition({"model": tx, "noise": tx}, {"model": "model", "noise": "noise"})


def flow_experiment(model: Model, dataset: Dataset, config: Flow) -> Experiment:
    """The experiment of a flow of images in [0, 1), with the noise and the optimiser that its config names."""
    noise = learned_noise(config, dataset, features=config.features, num_blocks=config.num_blocks)
    tx = cosine_adam(config, max_norm=1.0)
    return Experiment(as_levels(model, dataset, noise), tx, protocol=noise_protocol(config))
