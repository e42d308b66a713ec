"""What flows and autoregressive models do with input that is not legal: an error, or NaN where values are traced.

Each model's own file has the errors of its sizes; here is what arrives later: levels, labels, texts, folded space.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxgen import bijections as b
from jaxgen import paths
from jaxgen.distributions import categorical_conditional, categorical_log_prob, logistic_mixture
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.models.autoregressive.made import made_ensemble
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.models.flows.glow import glow
from jaxgen.models.flows.real_nvp import real_nvp, real_nvp_image
from jaxgen.nets import causal, pure
from jaxgen.nets.blocks import embed
from jaxgen.nets.dit import DiT
from jaxgen.nets.made import MADE
from jaxgen.nets.pixel_cnn import GatedPixelCNN
from jaxgen.nets.pixel_cnn_plus import PixelCNNPlus
from jaxgen.nets.resnet import ResNet
from jaxgen.nets.time import TimeMLP
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.transformer_blocks import MODERN
from jaxgen.nets.wavenet import WaveNet
from jaxgen.samplers.decode import temperature
from jaxgen.transforms import cells
from jaxgen.types import Batch

KEY = jax.random.key(0)
NUM_LEVELS, NUM_CLASSES = 5, 3
TOKENS, MIXTURE = categorical_conditional(NUM_LEVELS), logistic_mixture(NUM_LEVELS, 2, num_channels=1)
NETS = {
    "transformer": (Transformer(5, (4,), 8, 1, 2, NUM_CLASSES), (4,), TOKENS),
    "made": (MADE(5, (8,), (4,), NUM_CLASSES), (4,), TOKENS),
    "wavenet": (WaveNet(4, 5, 5, 4, 4, (1, 2), (NUM_CLASSES,)), (4,), TOKENS),
    "gated_pixel_cnn": (GatedPixelCNN((2, 2, 1), 5, 4, 1, 3, NUM_CLASSES), (2, 2, 1), TOKENS),
    "pixel_cnn_plus": (PixelCNNPlus((2, 2, 1), 5, 6, 4, 1, 1, NUM_CLASSES), (2, 2, 1), MIXTURE),
}


@pytest.mark.parametrize("name", NETS)
def test_levels_and_labels_that_there_are_not_give_nan_in_compiled_functions(name):
    """Rows: legal, a level too large, a negative one, a label too large, a negative one; NaN stays in its own row."""
    net, shape, conditional = NETS[name]
    model = autoregressive(net, shape, conditional)
    x = jnp.zeros((5, 4), jnp.int32).at[1, 0].set(NUM_LEVELS).at[2, 3].set(-1).reshape(5, *shape)
    cond = jnp.array([NUM_CLASSES - 1, 0, 0, NUM_CLASSES, -1])
    found = jax.jit(lambda x, cond: model.log_prob(causal.init(net, KEY, x, cond), x, cond))(x, cond)
    assert np.isnan(found).tolist() == [False, True, True, True, True]


@pytest.mark.parametrize("name", NETS)
def test_levels_and_labels_that_there_are_not_are_named_where_they_are_known(name):
    """Eagerly: by the likelihood and the loss, and labels by samples, which would be zeros without a word."""
    net, shape, conditional = NETS[name]
    model, right = autoregressive(net, shape, conditional), jnp.zeros(2, jnp.int32)
    assert_wrong_levels_and_labels_are_named(model, jnp.zeros((2, *shape), jnp.int32), right)


def test_levels_and_labels_of_an_ensemble_that_there_are_not_are_named_where_they_are_known():
    model = made_ensemble(NETS["made"][0], num_masks=2)
    assert_wrong_levels_and_labels_are_named(model, jnp.zeros((2, 4), jnp.int32), jnp.zeros(2, jnp.int32))


def assert_wrong_levels_and_labels_are_named(model, x, cond):
    params = jax.jit(lambda: model.init(KEY, Batch(x, cond))[0])()
    log_prob = lambda x, cond: model.log_prob(params, x, cond)  # noqa: E731
    loss = lambda x, cond: model.loss(params, (), KEY, Batch(x, cond))  # noqa: E731
    sample = lambda x, cond: model.sample(params, KEY, len(cond), cond)  # noqa: E731
    for call in (log_prob, loss):
        with pytest.raises(ValueError, match="the model knows the levels 0 to 4, got 5"):
            call(x.at[-1].set(NUM_LEVELS), cond)
    for call in (log_prob, loss, sample):
        for wrong in (9, -1):
            with pytest.raises(ValueError, match=f"of 3 classes knows the labels 0 to 2, got {wrong}"):
                call(x, cond.at[1].set(wrong))


LABELLED = {
    "mlp": real_nvp(2, num_layers=1, features=(4,), num_classes=NUM_CLASSES),
    "resnet": real_nvp_image((2, 2, 1), num_scales=1, num_layers=1, features=4, num_blocks=1, num_classes=NUM_CLASSES),
    "dit": diffusion(DiT(2, 8, 1, 2, NUM_CLASSES), (4, 4, 1), path=paths.cosine(), num_steps=1),
}


@pytest.mark.parametrize(("name", "shape"), [("mlp", (2,)), ("resnet", (2, 2, 1)), ("dit", (4, 4, 1))])
def test_a_label_that_there_is_not_is_named_by_every_network(name, shape):
    """Where labels enter: by samples, and by a loss that is compiled for those labels; vectors are no labels."""
    wrong = jnp.array([NUM_CLASSES, 0])
    model, x = LABELLED[name], jax.random.uniform(KEY, (2, *shape))
    params = jax.jit(lambda: model.init(KEY, Batch(x, jnp.arange(2)))[0])()
    with pytest.raises(ValueError, match="a network of 3 classes knows the labels 0 to 2, got 9"):
        model.sample(params, KEY, 2, jnp.array([0, 9]))
    with pytest.raises(ValueError, match="a network of 3 classes knows the labels 0 to 2, got 3"):
        jax.jit(lambda: model.loss(params, (), KEY, Batch(x, wrong))[0])()
    if name == "mlp":
        assert np.isfinite(model.log_prob(params, x, jnp.array([[9, 0, 0], [0, 0, -9]]))).all()


def test_each_label_of_several_has_its_own_limit():
    """Of a digit of ten values and a speaker of six."""
    net = WaveNet(4, 5, 5, 4, 4, (1,), (10, 6))
    assert net.context(jnp.array([[9, 5]]))[0].shape == (1, 2)
    with pytest.raises(ValueError, match="a network of 6 classes knows the labels 0 to 5, got 6"):
        net.context(jnp.array([[9, 6]]))


def test_only_what_is_no_level_is_nan():
    """Of the values -2 .. 4 of three levels, against probabilities written down."""
    p = np.array([0.2, 0.3, 0.5], np.float32)
    found = categorical_log_prob(jnp.arange(-2, 5), jnp.tile(jnp.log(p), (7, 1)))
    np.testing.assert_allclose(np.exp(found), [np.nan, np.nan, *p, np.nan, np.nan], rtol=1e-5)


def test_bytes_of_256_levels_are_all_known():
    """256 itself is no byte: probabilities of all of them still add up to one, and every cell has its place."""
    x, conditional = jnp.arange(256, dtype=jnp.uint8), logistic_mixture(256, 2)
    found = jax.jit(conditional.log_prob)(x, jnp.zeros((256, conditional.num_outputs)))
    assert np.exp(np.asarray(found, np.float64)).sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(jax.jit(lambda x: cells.place(x, 0.5, 256))(x), (np.arange(256) + 0.5) / 256)


def test_a_text_longer_than_the_context_is_refused_with_both_numbers():
    """In both layouts, of which the one that turns queries would go on without a word."""
    x = jnp.zeros((1, 6), jnp.int32)
    for style in ({}, {"style": MODERN}):
        with pytest.raises(ValueError, match="a context of 5 positions cannot hold 6 tokens"):
            causal.init(Transformer(3, (5,), 8, 1, 2, **style), KEY, x, None)


def test_a_dequantised_level_is_a_level():
    with pytest.raises(ValueError, match="dequantisation knows the levels 0 to 3, got 4"):
        cells.place(jnp.array([[3, 4]]), 0.5, 4)
    with pytest.raises(ValueError, match="dequantisation knows the levels 0 to 3, got -1"):
        cells.place(jnp.array([[-1, 0]]), 0.5, 4)
    found = jax.jit(lambda x: cells.place(x, 0.5, 4))(jnp.array([-1, 0, 3, 4]))
    np.testing.assert_array_equal(found, [np.nan, 0.125, 0.875, np.nan])


@pytest.mark.parametrize(
    ("side", "message"), [(6, r"even sides, got shape \(2, 3, 3, 2\)"), (8, r"\(4, 4, 1\).*\(8, 8, 1\)")]
)
def test_images_of_other_sides_than_those_of_the_flow_are_refused(side, message):
    """Sides that squeezing does not divide, and sides that it does: convolutions alone would take both."""
    model = real_nvp_image((4, 4, 1), num_scales=2, num_layers=1, features=4, num_blocks=1)
    params = jax.eval_shape(lambda: model.init(KEY, Batch(jnp.zeros((2, 4, 4, 1))))[0])
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.log_prob, params, jax.ShapeDtypeStruct((2, side, side, 1), jnp.float32))


@pytest.mark.parametrize(("value", "said"), [(1.5, "1.5"), (-0.25, "-0.25"), (float("nan"), "nan")])
def test_values_outside_of_the_interval_are_named_where_they_are_known(value, said):
    """By the logit, and so by every flow of images in [0, 1]; compiled, they have no density."""
    x = jnp.full((1, 4, 4, 1), 0.5).at[0, 1, 2, 0].set(value)
    model = glow((4, 4, 1), num_scales=1, num_steps=1, features=4)
    params = jax.jit(lambda: model.init(KEY, Batch(jax.random.uniform(KEY, (8, 4, 4, 1))))[0])()
    for refused in (lambda: b.logit().forward_and_log_det({}, x), lambda: model.log_prob(params, x)):
        with pytest.raises(ValueError, match=rf"the logit is of values in \[0, 1\], got {said}"):
            refused()
    assert np.isnan(jax.jit(lambda x: b.logit(0.0).forward_and_log_det({}, x)[1])(x)).all()


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")], ids=["constant", "nan", "inf"])
def test_a_channel_that_no_scale_normalises_is_named(value):
    """It would start a flow that is not invertible, or one of NaN."""
    x = jax.random.normal(KEY, (8, 3)).at[:, 1].set(value)
    with pytest.raises(ValueError, match="got channel 1 of the first batch, whose largest value is (0|nan) above"):
        b.actnorm().init(KEY, x)


@pytest.mark.parametrize("num_steps", [1, 9], ids=["written out", "a loop"])
def test_a_channel_that_a_traced_start_could_not_normalise_is_named(num_steps):
    """Of a whole model, from the parameters that a compiled `init` has made; others are let through."""
    model = glow((4, 4, 2), num_scales=1, num_steps=num_steps, features=4)
    x = jax.random.uniform(KEY, (8, 4, 4, 2))
    init = jax.jit(lambda x: model.init(KEY, Batch(x))[0])
    for fine in (init(x), jnp.ones(2), ()):
        b.check_actnorms(fine)
    with pytest.raises(ValueError, match="got channel 1 of the first batch at params.*, whose scale is 0.001"):
        b.check_actnorms(init(x.at[..., 1].set(0.5)))
    with pytest.raises(ValueError, match="got channel [01] of the first batch at params.*, whose scale is nan"):
        b.check_actnorms(init(x.at[0, 0, 0, 0].set(jnp.nan)))


class Scaled(nn.Module):
    """g(x) = factor x, without a limit on its slope."""

    factor: float

    @nn.compact
    def __call__(self, x, cond=None):
        return self.factor * x


@pytest.mark.parametrize(("factor", "expected"), [(0.5, 2 * np.log(1.5)), (-0.5, 2 * np.log(0.5)), (2.0, np.log(9))])
def test_the_log_determinant_of_a_residual_layer_is_that_of_its_matrix(factor, expected):
    log_det = b.residual(Scaled(factor)).forward_and_log_det({}, jnp.ones((1, 2)))[1]
    np.testing.assert_allclose(log_det, [expected], rtol=1e-5)


def test_a_residual_layer_that_folds_space_has_no_log_determinant():
    """z = x - 2 x in three dimensions turns space inside out, det = -1; |det| alone would say 0, a legal density."""
    log_det = b.residual(Scaled(-2.0)).forward_and_log_det({}, jnp.ones((1, 3)))[1]
    assert np.isnan(log_det).all()


@pytest.mark.parametrize("value", [float("nan"), np.float32(0), jnp.float32(-1)])
def test_a_temperature_that_is_not_above_zero_is_named_in_every_form(value):
    with pytest.raises(ValueError, match=f"temperature must be above 0, got {value}"):
        temperature(value)


def test_labels_out_of_range_are_seen_as_nan():
    """Inside a compiled function nothing can raise: of three examples, those with the labels -1 and 3 of 3 are NaN."""
    x, t, cond = jnp.ones((3, 2)), jnp.ones(3), jnp.array([-1, 2, 3])

    class Embedding(nn.Module):
        """What U-Nets and transformers make of a label."""

        @nn.compact
        def __call__(self, cond):
            return embed(x, cond, width=4, num_classes=3, dtype=jnp.float32)

    networks = {TimeMLP((4,), 3): (x, t, cond), Embedding(): (cond,), ResNet(4, 1, 0, 3): (x.reshape(3, 2, 1, 1), cond)}
    for net, inputs in networks.items():
        out = jax.jit(lambda *inputs, net=net: pure.apply(net, pure.init(net, KEY, *inputs), *inputs))(*inputs)
        np.testing.assert_array_equal(jnp.isnan(out).reshape(3, -1).any(1), [True, False, True])
