"""Learned noise against masses of cells by scipy, Jacobians by autodiff, and probabilities by enumeration."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import integrate, stats

from jaxgen import bijections as b
from jaxgen import paths
from jaxgen.core import Model, bits_per_dim, importance_bound
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.models.flows.real_nvp import real_nvp, real_nvp_image
from jaxgen.nets.mlp import MLP
from jaxgen.nets.resnet import ResNet
from jaxgen.nets.time import TimeMLP
from jaxgen.transforms import dequantize, probability_flow, pull_back, shape_noise, variational_dequantize
from jaxgen.transforms.variational_dequantize import shaped_noise
from jaxgen.types import Batch
from tests import analytic
from tests.bijecting import perturbed
from tests.training import fit, start

KEY, LEVELS = jax.random.key(0), 4
MEAN, SCALE = 0.4, 0.2
POINTS = np.array(list(itertools.product(range(LEVELS), repeat=2)), np.uint8)


class Conditioner(nn.Module):
    """Raw parameters of a coupling from what it keeps, the data and the label."""

    num: int
    zero_init: bool = False

    @nn.compact
    def __call__(self, kept, context):
        return MLP((16,), self.num, zero_init=self.zero_init)(jnp.concatenate([kept, context.x], -1))


def correlated(*, zero_init=False):
    """A conditional flow of two elements: couplings, then independent shapes."""
    nets = [Conditioner(2, zero_init) for _ in range(2)]
    couplings = [b.coupling(nets[0]), b.coupling(nets[1], b.halves(swap=True))]
    return b.chain(*couplings, shape_noise(MLP((8,), 4, zero_init=zero_init)))


def normal_model(log_prob=None):
    """Independent N(MEAN, SCALE^2) that learns nothing."""
    exact = lambda params, y, cond=None: stats_log_prob(y)  # noqa: E731
    return Model(
        init=lambda key, batch: ({}, ()),
        loss=lambda params, carry, key, batch: (-exact(params, batch.x).mean(), (carry, {"inner": batch.x.mean()})),
        sample=lambda params, key, num, cond=None: MEAN + SCALE * jax.random.normal(key, (num, 2)),
        log_prob=log_prob or exact,
        encode=lambda params, key, y, cond=None: y,
    )


def stats_log_prob(y):
    return jax.scipy.stats.norm.logpdf(y, MEAN, SCALE).reshape(len(y), -1).sum(-1)


def log_masses(x):
    """ln P(x) of the normal's cells, by scipy."""
    upper, lower = (stats.norm(MEAN, SCALE).cdf((np.asarray(x, np.float64) + i) / LEVELS) for i in (1, 0))
    return np.log(upper - lower).sum(-1)


def random_params(model, x):
    """Parameters of noise that is far from uniform."""
    params, _ = jax.jit(lambda: model.init(KEY, Batch(jnp.asarray(x))))()
    return jax.tree.map(lambda leaf: jax.random.normal(jax.random.fold_in(KEY, leaf.size), leaf.shape) * 0.2, params)


def draws(field, params, x, num):
    """`[len(x), num]` draws of a noisy field, in float64."""
    values = jax.jit(field)(params, KEY, jnp.repeat(jnp.asarray(x), num, 0))
    return np.asarray(values, np.float64).reshape(len(x), num)


def test_the_noise_has_the_density_of_its_jacobian():
    """ln q(u) = -ln|det du/dr| for uniform r, the determinant by autodiff of the draw; u lies in the unit cube."""
    noise, x = correlated(), jnp.asarray(POINTS)
    context = Batch((2 * x + 1.0) / LEVELS - 1, None)
    params = random_params(variational_dequantize(normal_model(), LEVELS, noise), x)["noise"]
    r = jax.random.uniform(KEY, (16, 2), minval=0.05, maxval=0.95)
    draw = lambda r, own: shaped_noise(noise, params, r[None], jax.tree.map(lambda a: a[None], own))[0][0]  # noqa: E731
    jacobian = jax.jit(jax.vmap(jax.jacfwd(draw)))(r, context)
    u, log_density = jax.jit(lambda r: shaped_noise(noise, params, r, context))(r)
    np.testing.assert_allclose(log_density, -np.linalg.slogdet(jacobian)[1], rtol=1e-4, atol=1e-4)
    assert abs(log_density).min() > 1e-3
    assert 0 < u.min() < u.max() < 1
    assert abs(jacobian[:, 0, 1]).max() > 1e-3 < abs(jacobian[:, 1, 0]).max()


def test_uniform_noise_is_dequantisation():
    """A network that starts at zero: the same weights, bounds and loss as `dequantize`, from the same key."""
    ours = variational_dequantize(normal_model(), LEVELS, correlated(zero_init=True))
    theirs, x = dequantize(normal_model(), LEVELS), jnp.asarray(POINTS)
    params, _ = jax.jit(lambda: ours.init(KEY, Batch(x)))()
    for name in ("log_weight", "encode"):
        found, expected = jax.jit(getattr(ours, name))(params, KEY, x), jax.jit(getattr(theirs, name))({}, KEY, x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    loss, (_, metrics) = jax.jit(ours.loss)(params, (), KEY, Batch(x))
    np.testing.assert_allclose(loss - metrics["model_loss"], 2 * np.log(LEVELS), rtol=1e-5)


def test_weights_average_to_the_mass_of_the_cell_and_bounds_rise_to_it():
    """Of every cell, with noise that fits badly: masses by scipy; within 5 standard errors."""
    model = variational_dequantize(normal_model(), LEVELS, correlated())
    params, exact = random_params(model, POINTS), log_masses(POINTS)
    weights = np.exp(draws(model.log_weight, params, POINTS, 5000))
    error = 5 * weights.std(1) / np.sqrt(5000)
    np.testing.assert_array_less(abs(weights.mean(1) - np.exp(exact)), error)
    one, many = (draws(importance_bound(model, k), params, POINTS, 500).mean() for k in (1, 50))
    assert one + 0.1 < many < exact.mean() + 0.01
    assert many > exact.mean() - 0.1


def test_training_closes_the_gap():
    """Of one density, whose gap under uniform noise scipy integrates; learned noise is left with a tenth of it."""
    model = variational_dequantize(normal_model(), LEVELS, shape_noise(MLP((32,), 4, zero_init=True)))
    x = jnp.asarray(POINTS)
    draw = lambda key: Batch(jnp.tile(x, (16, 1)))  # noqa: E731
    tx = optax.adam(1e-2)
    state = fit(model, tx, draw, start(model, tx, draw), 600)
    gap = log_masses(POINTS) - draws(model.elbo, state.ema_params, POINTS, 4000).mean(1)
    cell = lambda u, level: stats.norm(MEAN, SCALE).logpdf((level + u) / LEVELS) - np.log(LEVELS)  # noqa: E731
    means = np.array([integrate.quad(cell, 0, 1, (level,))[0] for level in range(LEVELS)])
    uniform_gap = log_masses(POINTS) - means[POINTS].sum(-1)
    assert np.all(gap > -0.005)
    assert gap.mean() < 0.1 * uniform_gap.mean()


def test_the_loss_descends_the_bound():
    """Its value is -E ln w; of a flow its gradient is that of the value, by autodiff without anything held fixed."""
    flow, noise = pull_back(real_nvp(2, num_layers=1, features=(8,)), b.affine(-1, 2)), shape_noise(MLP((8,), 4))
    model, x = variational_dequantize(flow, LEVELS, noise), jnp.asarray(POINTS)
    params, lacking = random_params(model, POINTS), 2 * np.log(2)  # the flow's loss is that of its own coordinates

    def negative_bound(params):
        r = (2 * jax.random.randint(jax.random.split(KEY, 3)[0], x.shape, 0, 2**14) + 1) / 2**15
        u, log_noise = shaped_noise(noise, params["noise"], r, Batch((2 * x + 1.0) / LEVELS - 1, None))
        return (log_noise - flow.log_prob(params["model"], (x + u) / LEVELS)).mean(), log_noise.mean()

    ours = jax.jit(jax.value_and_grad(lambda params: model.loss(params, (), KEY, Batch(x)), has_aux=True))
    (loss, (_, metrics)), found = ours(params)
    (value, log_noise), expected = jax.jit(jax.value_and_grad(negative_bound, has_aux=True))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, expected)
    np.testing.assert_allclose(metrics["model_loss"] + log_noise - lacking, value, rtol=1e-4)
    np.testing.assert_allclose(loss, value + 2 * np.log(LEVELS), rtol=1e-4)


def test_a_flow_trained_with_its_noise_on_known_probabilities():
    """All 16 probabilities of a table, by enumeration.

    They sum to one, no bound beats the entropy, more samples come nearer to it, and so does learned noise than uniform.
    """
    table = np.random.default_rng(0).dirichlet(np.full(16, 0.5))
    flow = pull_back(real_nvp(2, num_layers=2, features=(16,)), b.logit(0.0))
    model, tx = variational_dequantize(flow, LEVELS, correlated(zero_init=True)), optax.adam(1e-2)
    draw = lambda key: Batch(jax.random.choice(key, jnp.asarray(POINTS), (256,), p=jnp.asarray(table)))  # noqa: E731
    params = fit(model, tx, draw, start(model, tx, draw), 300).ema_params
    weights = draws(model.log_weight, params, POINTS, 4000)
    error = np.exp(weights).std(1) / np.sqrt(4000)
    assert abs(np.exp(weights).mean(1).sum() - 1) < 5 * np.sqrt((error**2).sum()) + 1e-3
    uniform = draws(dequantize(flow, LEVELS).log_weight, params["model"], POINTS, 4000).mean(1)
    many = np.log(np.exp(weights.reshape(16, -1, 40)).mean(-1)).mean(-1)
    bounds = [table @ bound for bound in (uniform, weights.mean(1), many, np.log(table))]
    assert bounds == sorted(bounds)
    assert bounds[0] + 0.03 < bounds[1] < bounds[2] - 0.01


class ImageConditioner(nn.Module):
    """Raw parameters of a coupling of squeezed images from the channels that it keeps and the image itself."""

    @nn.compact
    def __call__(self, kept, context):
        image = b.forward(b.squeeze(), {}, context.x)
        return ResNet(8, 4, 1, zero_init=True)(jnp.concatenate([kept, image], -1))


BITS = jnp.asarray(list(itertools.product(range(2), repeat=4)), jnp.uint8).reshape(16, 2, 2, 1)


@functools.cache
def models_of_images():
    """Real NVP of images, with uniform noise and with that of a conditional flow, as in Flow++; `log_weight` compiled.

    Also parameters that start with such noise; the flow's are random numbers, far from a fresh start.
    """
    flow = real_nvp_image((2, 2, 1), num_scales=1, num_layers=1, features=4, num_blocks=1, alpha=0.0)
    couplings = [b.coupling(ImageConditioner()), b.coupling(ImageConditioner(), b.halves(swap=True))]
    noise = b.chain(b.squeeze(), *couplings, b.invert(b.squeeze()), shape_noise(ResNet(8, 2, 1, zero_init=True)))
    uniform, model = dequantize(flow, 2), variational_dequantize(flow, 2, noise)
    shapes = jax.eval_shape(lambda: model.init(KEY, Batch(BITS))[0]["model"])
    fresh = jax.jit(lambda: model.init(KEY, Batch(BITS))[0]["noise"])()
    params = {"model": perturbed(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes), 0.1), "noise": fresh}
    compiled = [each._replace(log_weight=jax.jit(each.log_weight)) for each in (uniform, model)]
    return *compiled, params


def test_of_images_noise_at_its_zero_start_is_dequantisation():
    """Weights are those of uniform noise from the same key."""
    uniform, model, params = models_of_images()
    log_weights = draws(model.log_weight, params, BITS, 2000)
    assert log_weights.std() > 1
    np.testing.assert_allclose(
        log_weights, draws(uniform.log_weight, params["model"], BITS, 2000), rtol=1e-4, atol=1e-3
    )


def test_of_images_probabilities_sum_to_one_and_bounds_rise_to_them():
    """Of all 16 images of 2x2 bits, by enumeration, with noise that is neither uniform nor trained.

    Weights have the means of those under uniform noise, in five standard errors; sixteen draws are closer than one.
    """
    uniform, model, params = models_of_images()
    params = params | {"noise": perturbed(params["noise"], 0.05)}
    log_weights = draws(model.log_weight, params, BITS, 2000)
    log_others = draws(uniform.log_weight, params["model"], BITS, 2000)
    assert abs(log_weights.mean() - log_others.mean()) > 0.1
    weights, others = np.exp(log_weights), np.exp(log_others)
    variances = np.stack([weights.var(1), others.var(1)]) / 2000
    assert abs(weights.mean(1).sum() - 1) < 5 * np.sqrt(variances[0].sum())
    np.testing.assert_array_less(abs(weights.mean(1) - others.mean(1)), 5 * np.sqrt(variances.sum(0)))
    exact, many = np.log(others.mean(1)), draws(importance_bound(model, 16), params, BITS, 100).mean(1)
    gaps = [np.exp(exact) @ (exact - bound) for bound in (log_weights.mean(1), many)]
    assert gaps[0] > 0.1
    assert -0.01 < gaps[1] < 0.5 * gaps[0]


def test_around_a_probability_flow_and_a_diffusion():
    """ln P of integers under a mixture's flow: its mass in the cell by a fine sum; the bound below it."""
    mixture, path, levels = analytic.mixture(1), paths.cosine(), 8
    score = analytic.score(mixture, path)
    exact = Model(
        init=lambda key, batch: ({}, ()),
        loss=lambda params, carry, key, batch: (jnp.zeros(()), (carry, {})),
        sample=lambda params, key, num, cond=None: jnp.zeros((num, 1)),
        score=lambda params, x, t, cond=None: score(x, t),
    )
    flow = pull_back(probability_flow(exact, path, num_steps=40), b.affine(-2.0, 4.0))
    model, x = variational_dequantize(flow, levels, shape_noise(MLP((4,), 2))), np.array([[3], [5]], np.uint8)
    weights = draws(model.log_weight, random_params(model, x), x, 2000)
    width, fine = 4 / levels, (np.arange(1000) + 0.5) / 1000
    points = -2 + width * (x + fine)
    mass = np.exp(analytic.log_prob(mixture, points.reshape(-1, 1))).reshape(2, 1000).mean(1) * width
    error = np.exp(weights).std(1) / np.sqrt(2000)
    np.testing.assert_array_less(abs(np.exp(weights).mean(1) - mass), 4 * error + 1e-3)
    assert np.all(weights.mean(1) < np.log(mass))


def test_one_set_of_parameters_serves_a_diffusion_and_its_flow():
    """The noise is trained against the diffusion's bound, and evaluated with the flow's likelihood."""
    path, noise = paths.cosine(), shape_noise(MLP((4,), 4, 3, zero_init=True))
    inner = diffusion(TimeMLP((8,), 3), (2,), path=path, num_steps=2, num_bound_times=2)
    wrap = lambda model: variational_dequantize(pull_back(model, b.affine(-1, 2)), LEVELS, noise)  # noqa: E731
    batch = Batch(jnp.asarray(POINTS), jnp.arange(16) % 3)
    params, _ = jax.jit(wrap(inner).init)(KEY, batch)
    value_and_grad = jax.jit(jax.value_and_grad(wrap(inner).loss, has_aux=True))
    (loss, (_, metrics)), grads = value_and_grad(params, (), KEY, batch)
    keys = jax.random.split(KEY, 1000)
    losses = jax.jit(jax.vmap(lambda key: wrap(inner).loss(params, (), key, batch)[0]))(keys)
    bounds = jax.jit(jax.vmap(lambda key: wrap(inner).elbo(params, key, *batch).mean()))(keys)
    assert abs(losses.mean() + bounds.mean()) < 4 * np.sqrt((losses.var() + bounds.var()) / 1000)
    assert all(jnp.abs(grads["noise"]["Dense_1"]["kernel"]).sum(0) > 0)
    assert np.isfinite(loss + metrics["model_loss"])
    flow = wrap(probability_flow(inner, path, num_steps=4))
    assert jax.eval_shape(flow.log_weight, params, KEY, *batch).shape == (16,)


def test_a_judge_trains_the_noise_and_nothing_else():
    """Value, and gradient of the noise, are those of the judge as the model; the gradient of the model is its own."""
    flow, noise = pull_back(real_nvp(2, num_layers=1, features=(8,)), b.affine(-1, 2)), shape_noise(MLP((8,), 4))
    batch = Batch(jnp.asarray(POINTS))
    other = flow._replace(log_prob=lambda params, y, cond=None: 3 * flow.log_prob(params, y, cond))
    params = random_params(variational_dequantize(flow, LEVELS, noise), POINTS)

    def judged(model, judge=None):
        wrapped = variational_dequantize(model, LEVELS, noise, judge=judge)
        return jax.jit(jax.value_and_grad(lambda params: wrapped.loss(params, (), KEY, batch)[0]))(params)

    (value, by_other), (as_model, own), (_, by_itself) = judged(flow, other), judged(other), judged(flow)
    assert value == pytest.approx(as_model)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, by_other["noise"], own["noise"])
    jax.tree.map(close, by_other["model"], by_itself["model"])
    assert min(jax.tree.leaves(jax.tree.map(lambda a, b: abs(a - b).max(), by_itself["noise"], own["noise"]))) > 0.01


def test_uniform_density_needs_log2_of_the_levels_bits_per_dim():
    """Whatever the noise, no bound says less, and the mean of the weights says that."""
    constant = lambda params, y, cond=None: jnp.zeros(len(y))  # noqa: E731
    model = variational_dequantize(normal_model(constant), LEVELS, correlated())
    weights = draws(model.log_weight, random_params(model, POINTS), POINTS[:2], 5000)
    mean = np.log(np.exp(weights).mean(1))
    error = 5 * np.exp(weights - mean[:, None]).std(1) / np.sqrt(5000)
    np.testing.assert_array_less(abs(bits_per_dim(jnp.asarray(mean), 2) - np.log2(LEVELS)), error)
    assert np.all(bits_per_dim(jnp.asarray(weights.mean(1)), 2) > np.log2(LEVELS))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: variational_dequantize(normal_model(), 257, correlated()), "257"),
        (lambda: variational_dequantize(normal_model()._replace(log_prob=None), 4, correlated()), "log_prob, elbo"),
        (
            lambda: variational_dequantize(
                normal_model(), 4, correlated(), judge=normal_model()._replace(log_prob=None)
            ),
            "needs a judge with log_prob, elbo",
        ),
        (
            lambda: variational_dequantize(normal_model(), 4, correlated()).init(KEY, Batch(jnp.zeros((2, 2)))),
            "integers 0, ..., 3, got data of type float32",
        ),
        (
            lambda: random_params(variational_dequantize(normal_model(), 4, shape_noise(MLP((4,), 3))), POINTS),
            r"2 outputs .* got outputs of shape \(16, 3\)",
        ),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
