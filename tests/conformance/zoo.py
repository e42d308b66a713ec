"""Every model of the library, once: adding a model to every invariant is adding one entry here."""

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgen import paths
from jaxgen.bijections import affine, logit, rational_quadratic_spline, reshape
from jaxgen.core import Model
from jaxgen.distributions import (
    bernoulli_likelihood,
    categorical_conditional,
    logistic_mixture,
    normal_likelihood,
    with_end,
)
from jaxgen.models.adversarial.gan import gan, two_player_optimizer
from jaxgen.models.autoencoders.vae import vae
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.models.autoregressive.made import made_ensemble
from jaxgen.models.classical.ppca import ppca
from jaxgen.models.diffusion.consistency import consistency
from jaxgen.models.diffusion.continuous_consistency import continuous_consistency
from jaxgen.models.diffusion.d3pm import d3pm
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.models.diffusion.masked_diffusion import masked_diffusion
from jaxgen.models.diffusion.mean_flow import mean_flow
from jaxgen.models.diffusion.shortcut import shortcut
from jaxgen.models.diffusion.vdm import vdm
from jaxgen.models.energy.rbm import log_partition, rbm
from jaxgen.models.flows.ffjord import ffjord
from jaxgen.models.flows.glow import glow
from jaxgen.models.flows.iaf import iaf
from jaxgen.models.flows.maf import maf
from jaxgen.models.flows.neural_spline_flow import neural_spline_flow, neural_spline_flow_autoregressive
from jaxgen.models.flows.nice import nice
from jaxgen.models.flows.real_nvp import real_nvp, real_nvp_image
from jaxgen.models.flows.residual_flow import residual_flow
from jaxgen.nets.made import MADE
from jaxgen.nets.mlp import MLP
from jaxgen.nets.monotone import Monotone
from jaxgen.nets.pixel_cnn import GatedPixelCNN, PixelCNN
from jaxgen.nets.pixel_cnn_plus import PixelCNNPlus
from jaxgen.nets.pixel_rnn import PixelRNN
from jaxgen.nets.time import TimeMLP, slow_features
from jaxgen.nets.tokens import TokenNet
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.transformer_blocks import GPT2, MODERN
from jaxgen.nets.translator import Translator
from jaxgen.nets.wavenet import WaveNet
from jaxgen.paths import transitions
from jaxgen.samplers.adaptive import dormand_prince
from jaxgen.samplers.unipc import unipc
from jaxgen.transforms import (
    classifier_free_guidance,
    classifier_guidance,
    dequantize,
    drop_condition,
    normalize,
    probability_flow,
    pull_back,
    resample,
    shape_noise,
    variational_dequantize,
)
from jaxgen.types import Batch

NUM = 16
NUM_CLASSES = 3


def adam(learning_rate: float, eps: float = 1e-3) -> optax.GradientTransformation:
    """Adam that does not blow a gradient of the size of rounding up to a whole step."""
    return optax.adam(learning_rate, eps=eps)


class Support(NamedTuple):
    """Points and weights with `sum(weights * p(points)) = 1` for any density or probability on them."""

    points: Any
    weights: Any


class Entry(NamedTuple):
    """A model with what the invariants need to know of it.

    Attributes:
        name: shown in the names of the tests.
        model: a small instance.
        batch: `NUM` examples.
        tx: optimiser.
        conditional: whether the model reads `cond`.
        support: where `log_prob` sums or integrates to one, if that can be checked.
        noise: standard deviation of what is added to the parameters before it is; the support has to hold all mass.
        exceptions: names of invariants that this model is known not to obey, with the reason.
    """

    name: str
    model: Model
    batch: Batch
    tx: optax.GradientTransformation = adam(1e-2)
    conditional: bool = False
    support: Support | None = None
    noise: float = 0.2
    exceptions: dict[str, str] = {}  # noqa: RUF012


def grid(limit: float, num: int) -> Support:
    """The square [-limit, limit]^2 with the trapezium rule."""
    axis = jnp.linspace(-limit, limit, num)
    points = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    return Support(points, jnp.full(num**2, (axis[1] - axis[0]) ** 2))


def bits(num: int) -> Support:
    """All vectors of bits, each counted once."""
    return every(2, num)


def every(num_levels: int, *shape: int) -> Support:
    """All arrays of a shape with values 0 .. num_levels - 1, each counted once."""
    points = jnp.array(list(itertools.product(range(num_levels), repeat=math.prod(shape))), jnp.uint8)
    return Support(points.reshape(-1, *shape), jnp.ones(len(points)))


def real(*shape: int) -> Batch:
    """Correlated reals with labels."""
    x = jax.random.normal(jax.random.key(1), (NUM, *shape))
    return Batch(x + 0.5 * jnp.roll(x, 1, -1), jnp.arange(NUM) % NUM_CLASSES)


def unit(*shape: int) -> Batch:
    """Reals in (0, 1) with labels."""
    batch = real(*shape)
    return batch._replace(x=jax.nn.sigmoid(batch.x))


def levels(num_levels: int, *shape: int) -> Batch:
    """Integers 0 .. num_levels - 1 with labels."""
    x = jax.random.randint(jax.random.key(2), (NUM, *shape), 0, num_levels).astype(jnp.uint8)
    return Batch(x, jnp.arange(NUM) % NUM_CLASSES)


def side_of_the_plane(x: Any, t: Any, cond: Any) -> Any:
    """A classifier of three directions, `ln p(cond | x_t)`, that takes noise for data."""
    del t
    directions = jnp.array([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    return jnp.take_along_axis(jax.nn.log_softmax(x @ directions.T), cond[:, None], 1)[:, 0]


class Told(WaveNet):
    """A WaveNet whose label also says where the sound is over: label k may end in half k, and has ended by the next."""

    def context(self, cond: Any) -> Any:
        frames = (jnp.arange(2) < cond[:, None]).astype(jnp.int32)
        return super().context((cond, jax.nn.one_hot(frames, 2)))


def told_sounds() -> Batch:
    """Sounds of four samples of two levels and an end, 2, that are over where `Told` is told: at samples 0, 2 and 4."""
    labels = jnp.arange(NUM) % 3
    sounds = jax.random.randint(jax.random.key(2), (NUM, 4), 0, 2)
    return Batch(jnp.where(jnp.arange(4) < 2 * labels[:, None], sounds, 2).astype(jnp.uint8), labels)


TOKENS, IMAGES, MIXTURE = categorical_conditional(3), (2, 2, 1), logistic_mixture(4, 2, num_channels=2)
MIXTURE_AND_END = with_end(logistic_mixture(2, 2))
PLAYERS = two_player_optimizer(adam(1e-2), adam(1e-2))
PATH = paths.variance_preserving(t_min=1e-3)

ENTRIES = [
    Entry("ppca", ppca(2, 1), real(2), support=grid(12, 241)),
    Entry(
        "vae",
        vae(MLP((8,), 4, NUM_CLASSES), MLP((8,), 6, NUM_CLASSES), bernoulli_likelihood(), latent_dim=2),
        levels(2, 6),
        conditional=True,
    ),
    Entry("vae_normal", vae(MLP((8,), 4), MLP((8,), 6), normal_likelihood(), latent_dim=2), real(6)),
    Entry(
        "real_nvp",
        real_nvp(2, num_layers=4, features=(8,), num_classes=NUM_CLASSES),
        real(2),
        conditional=True,
        support=grid(12, 241),
    ),
    Entry(
        "real_nvp_image",
        dequantize(
            real_nvp_image((4, 4, 1), num_scales=1, num_layers=1, features=4, num_blocks=1, num_classes=NUM_CLASSES),
            4,
        ),
        levels(4, 4, 4, 1),
        conditional=True,
    ),
    Entry(
        "nice",
        nice(2, num_layers=2, features=(8,), num_classes=NUM_CLASSES),
        real(2),
        conditional=True,
        support=grid(12, 241),
    ),
    Entry(
        "maf",
        maf(2, num_layers=2, features=(8,), num_classes=NUM_CLASSES),
        real(2),
        conditional=True,
        support=grid(12, 241),
    ),
    Entry(
        "iaf",
        iaf(2, num_layers=2, features=(8,), num_classes=NUM_CLASSES),
        real(2),
        conditional=True,
        support=grid(12, 241),
    ),
    Entry(
        "neural_spline_flow",
        neural_spline_flow(2, num_layers=2, features=(8,), num_bins=4, num_classes=NUM_CLASSES),
        real(2),
        conditional=True,
        support=grid(12, 241),
    ),
    Entry(
        "neural_spline_flow_autoregressive",
        neural_spline_flow_autoregressive(2, num_layers=1, features=(16,), num_bins=4, num_classes=NUM_CLASSES),
        real(2),
        conditional=True,
        support=grid(12, 241),
    ),
    Entry(
        "ffjord",
        ffjord(TimeMLP((8,), NUM_CLASSES, 4, embed=slow_features), (2,), num_steps=2),
        real(2),
        conditional=True,
        support=grid(8, 121),
        noise=0.3,
    ),
    Entry(
        "residual_flow",
        residual_flow(2, num_layers=2, features=(8,), num_classes=NUM_CLASSES, num_inverse_iterations=40),
        real(2),
        conditional=True,
        support=grid(12, 241),
    ),
    Entry(
        "glow",
        glow((4, 4, 1), num_scales=1, num_steps=1, features=4, num_classes=NUM_CLASSES),
        unit(4, 4, 1),
        conditional=True,
    ),
    Entry(
        "glow_spline",
        glow((2, 2, 1), num_scales=1, num_steps=1, features=4, elementwise=rational_quadratic_spline(4)),
        unit(2, 2, 1),
        exceptions={"score_is_the_gradient": "the score of a spline jumps at its knots, which differences step over"},
    ),
    Entry(
        "variational_dequantize",
        variational_dequantize(
            pull_back(real_nvp(2, num_layers=2, features=(8,)), logit(0.0)),
            4,
            shape_noise(MLP((8,), 4, NUM_CLASSES, zero_init=True)),
        ),
        levels(4, 2),
    ),
    Entry(
        "variational_dequantize_judged",
        variational_dequantize(
            pull_back(diffusion(TimeMLP((16,), NUM_CLASSES), (2,), path=PATH, num_steps=5), affine(-1.0, 2.0)),
            4,
            shape_noise(MLP((8,), 4, NUM_CLASSES)),
            judge=pull_back(
                diffusion(TimeMLP((16,), NUM_CLASSES), (2,), path=PATH, num_bound_times=1), affine(-1.0, 2.0)
            ),
        ),
        levels(4, 2),
        conditional=True,
    ),
    Entry("rbm", rbm(6, 4, num_steps=2, sample_steps=20), levels(2, 6)),
    Entry("rbm_persistent", rbm(6, 4, num_chains=NUM, sample_steps=20), levels(2, 6)),
    Entry("rbm_normalized", normalize(rbm(6, 4, sample_steps=20), log_partition), levels(2, 6), support=bits(6)),
    Entry("gan", gan(MLP((8,), 2), MLP((8,), 1), 2, r1_weight=0.1), real(2), PLAYERS),
    Entry(
        "gan_conditional",
        gan(MLP((8,), 2, NUM_CLASSES), MLP((8,), 1, NUM_CLASSES), 2),
        real(2),
        PLAYERS,
        conditional=True,
    ),
    Entry(
        "diffusion",
        diffusion(TimeMLP((16,), NUM_CLASSES), (2,), path=PATH, parametrization=paths.EPS, num_steps=5),
        real(2),
        conditional=True,
    ),
    Entry(
        "diffusion_exploding",
        pull_back(
            diffusion(TimeMLP((16,)), (4,), path=paths.variance_exploding(), parametrization=paths.X0, num_steps=5),
            reshape((2, 2), (4,)),
        ),
        real(2, 2),
    ),
    Entry(
        "flow_matching",
        diffusion(
            TimeMLP((8,)),
            (2,),
            path=paths.linear(),
            parametrization=paths.VELOCITY,
            coupling=paths.optimal_transport_coupling(),
            num_steps=2,
            num_bound_times=2,
        ),
        real(2),
    ),
    Entry(
        "consistency",
        consistency(
            TimeMLP((8,), NUM_CLASSES),
            (2,),
            teacher=diffusion(TimeMLP((8,)), (2,), path=paths.karras()),
            target_decay=0.9,
            num_steps=2,
        ),
        real(2),
        conditional=True,
    ),
    Entry(
        "consistency_training",
        consistency(TimeMLP((8,), NUM_CLASSES), (2,), pairs=paths.log_normal_pairs(paths.doubling(8)), num_steps=2),
        real(2),
        conditional=True,
    ),
    Entry("continuous_consistency", continuous_consistency(TimeMLP((8,)), (2,), num_warmup_steps=2), real(2)),
    Entry(
        "continuous_consistency_distilled",
        continuous_consistency(
            TimeMLP((8,), NUM_CLASSES), (2,), teacher=diffusion(TimeMLP((8,)), (2,)), num_warmup_steps=2, num_steps=2
        ),
        real(2),
        conditional=True,
    ),
    Entry(
        "rectified_flow",
        diffusion(
            TimeMLP((8,)),
            (2,),
            path=paths.linear(),
            parametrization=paths.VELOCITY,
            coupling=paths.reflow_coupling(diffusion(TimeMLP((8,)), (2,), path=paths.linear(), num_steps=2)),
            num_steps=2,
            num_bound_times=2,
        ),
        real(2),
    ),
    Entry("mean_flow", mean_flow(TimeMLP((8,), NUM_CLASSES), (2,)), real(2), conditional=True),
    Entry(
        "mean_flow_guided",
        drop_condition(
            mean_flow(TimeMLP((8,), NUM_CLASSES + 1), (2,), guidance_scale=2.0, null=NUM_CLASSES),
            0.3,
            null=NUM_CLASSES,
        ),
        real(2),
        conditional=True,
    ),
    Entry("shortcut", shortcut(TimeMLP((8,)), (2,), num_levels=3, num_steps=2), real(2)),
    Entry(
        "masked_diffusion",
        masked_diffusion(TokenNet(TimeMLP((8,), NUM_CLASSES), 4, 5, width=2), (3,), 4, num_steps=3, num_bound_times=2),
        levels(4, 3),
        adam(0.1, eps=1e-4),
        conditional=True,
    ),
    Entry(
        "d3pm",
        d3pm(TokenNet(TimeMLP((8,)), 4, 4, width=2), (3,), transitions.gaussian(4, 3), num_bound_times=2),
        levels(4, 3),
    ),
    Entry(
        "d3pm_absorbing",
        d3pm(TokenNet(TimeMLP((8,), NUM_CLASSES), 4, 5, width=2), (3,), transitions.absorbing(4, 3), num_bound_times=2),
        levels(4, 3),
        adam(0.1, eps=1e-4),
        conditional=True,
    ),
    Entry(
        "resample",
        resample(diffusion(TimeMLP((8,)), (2,), path=PATH, num_steps=2), PATH, stepper=unipc(), num_steps=3),
        real(2),
    ),
    Entry(
        "vdm",
        vdm(TimeMLP((8,), NUM_CLASSES), (2,), schedule=Monotone(4), num_steps=3, num_bound_times=2),
        real(2),
        conditional=True,
    ),
    Entry(
        "guided",
        resample(
            classifier_free_guidance(
                drop_condition(diffusion(TimeMLP((8,), NUM_CLASSES + 1), (2,), path=PATH), 0.3, null=NUM_CLASSES),
                PATH,
                null=NUM_CLASSES,
                scale=2.0,
                interval=(0.1, 5.0),
            ),
            PATH,
            num_steps=3,
        ),
        real(2),
        conditional=True,
    ),
    Entry(
        "guided_by_a_classifier",
        resample(
            classifier_guidance(diffusion(TimeMLP((8,)), (2,), path=PATH), PATH, side_of_the_plane, scale=2.0),
            PATH,
            num_steps=3,
        ),
        real(2),
        conditional=True,
    ),
    Entry(
        "probability_flow_estimated",
        probability_flow(
            diffusion(TimeMLP((8,), NUM_CLASSES), (2,), path=PATH, num_steps=5), PATH, num_steps=5, num_probes=2
        ),
        real(2),
        conditional=True,
    ),
    Entry(
        "probability_flow",
        probability_flow(diffusion(TimeMLP((16,)), (2,), path=PATH, num_steps=5), PATH, num_steps=20),
        real(2),
        support=grid(8, 121),
    ),
    Entry(
        "probability_flow_adaptive",
        probability_flow(
            diffusion(TimeMLP((8,), NUM_CLASSES, 4, embed=slow_features), (2,), path=PATH, num_steps=5),
            PATH,
            solver=dormand_prince(rtol=1e-6, atol=1e-6),
        ),
        real(2),
        conditional=True,
        support=grid(8, 61),
        exceptions={"score_is_the_gradient": "a loop of as many steps as it needs has no backward derivative"},
    ),
    Entry(
        "transformer",
        autoregressive(Transformer(3, (3,), 8, 1, 2, NUM_CLASSES, MODERN), (3,), TOKENS),
        levels(3, 3),
        conditional=True,
        support=every(3, 3),
    ),
    Entry(
        "transformer_gpt2",
        autoregressive(Transformer(3, (3,), 8, 1, 2, NUM_CLASSES, GPT2), (3,), TOKENS),
        levels(3, 3),
        conditional=True,
        support=every(3, 3),
    ),
    Entry(
        "image_transformer",
        autoregressive(Transformer(3, IMAGES, 8, 1, 2, NUM_CLASSES), IMAGES, TOKENS),
        levels(3, *IMAGES),
        conditional=True,
        support=every(3, *IMAGES),
    ),
    Entry(
        "translator",
        autoregressive(Translator(4, 3, 2, 3, padding=3, width=8, depth=1, num_heads=2), (3,), TOKENS, end=0),
        Batch(jnp.sort(levels(3, 3).x, axis=1)[:, ::-1], levels(3, 2).x),
        adam(0.1),
        conditional=True,
    ),
    Entry(
        "made",
        autoregressive(MADE(3, (16,), IMAGES, NUM_CLASSES), IMAGES, TOKENS),
        levels(3, *IMAGES),
        conditional=True,
        support=every(3, *IMAGES),
    ),
    Entry(
        "made_ensemble",
        made_ensemble(MADE(3, (16,), IMAGES, NUM_CLASSES), num_masks=3),
        levels(3, *IMAGES),
        adam(0.1),
        conditional=True,
        support=every(3, *IMAGES),
    ),
    Entry(
        "pixel_cnn",
        autoregressive(PixelCNN((1, 2, 2), 3, 4, 1, 3, NUM_CLASSES), (1, 2, 2), TOKENS),
        levels(3, 1, 2, 2),
        adam(0.1),
        conditional=True,
        support=every(3, 1, 2, 2),
    ),
    Entry(
        "gated_pixel_cnn",
        autoregressive(GatedPixelCNN((2, 1, 2), 3, 4, 1, 3, NUM_CLASSES), (2, 1, 2), TOKENS),
        levels(3, 2, 1, 2),
        adam(0.05, eps=1e-4),
        conditional=True,
        support=every(3, 2, 1, 2),
    ),
    Entry(
        "pixel_rnn",
        autoregressive(PixelRNN((1, 2, 2), 3, 4, 1, 3, num_classes=NUM_CLASSES), (1, 2, 2), TOKENS),
        levels(3, 1, 2, 2),
        conditional=True,
        support=every(3, 1, 2, 2),
    ),
    Entry(
        "pixel_rnn_rows",
        autoregressive(PixelRNN((2, 2, 1), 3, 4, 1, 3, diagonal=False, num_classes=NUM_CLASSES), (2, 2, 1), TOKENS),
        levels(3, 2, 2, 1),
        conditional=True,
        support=every(3, 2, 2, 1),
    ),
    Entry(
        "pixel_cnn_plus",
        autoregressive(
            PixelCNNPlus((2, 2, 2), 4, MIXTURE.num_outputs, 4, 1, 2, NUM_CLASSES, dropout=0.1), (2, 2, 2), MIXTURE
        ),
        levels(4, 2, 2, 2),
        conditional=True,
    ),
    Entry(
        "wavenet",
        autoregressive(WaveNet(4, 3, 3, 4, 4, (1, 2), (NUM_CLASSES,)), (4,), TOKENS),
        levels(3, 4),
        adam(0.05),
        conditional=True,
        support=every(3, 4),
    ),
    Entry(
        "wavenet_mixture",
        autoregressive(WaveNet(4, 3, MIXTURE_AND_END.num_outputs, 4, 4, (1, 2)), (4,), MIXTURE_AND_END),
        levels(3, 4),
        adam(0.05),
        support=every(3, 4),
    ),
    Entry(
        "wavenet_told",
        autoregressive(
            Told(4, 3, 3, 4, 4, (1, 2), (NUM_CLASSES,), num_local=2, ending=functools.partial(TOKENS.ending, end=2)),
            (4,),
            TOKENS,
            end=2,
        ),
        told_sounds(),
        adam(0.05),
        conditional=True,
        support=every(3, 4),
    ),
]
