"""Real NVP against the Jacobian of its own encoder by autodiff, against quadrature, and against a known entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxgen.core import init_state, score, train_step
from jaxgen.models.flows.real_nvp import real_nvp, real_nvp_image
from jaxgen.types import Batch

NUM_CLASSES = 2
KEY = jax.random.key(0)


def perturbed(model, x, cond):
    """Parameters far from the fresh ones, whose networks say nothing."""

    @jax.jit
    def init():
        leaves, tree = jax.tree.flatten(model.init(jax.random.key(1), Batch(x, cond))[0])
        keys = jax.random.split(jax.random.key(2), len(leaves))
        return tree.unflatten([a + 0.3 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)])

    return init()


def log_prob_by_autodiff(model, params, x, cond):
    """ln N(z; 0, I) + ln|det dz/dx| with the Jacobian of `encode` by autodiff: no log-determinant of ours."""

    def encode(x, c):
        return model.encode(params, KEY, x[None], c[None])[0].reshape(-1)

    def one(x, c):
        jacobian = jax.jacrev(encode)(x, c).reshape(x.size, x.size)
        return jax.scipy.stats.norm.logpdf(encode(x, c)).sum() + jnp.linalg.slogdet(jacobian)[1]

    return jax.vmap(one)(x, cond)


@pytest.fixture(scope="module")
def vectors():
    model = real_nvp(2, num_layers=4, features=(8,), num_classes=NUM_CLASSES)
    x, cond = jax.random.normal(KEY, (6, 2)), jnp.arange(6) % NUM_CLASSES
    return model, perturbed(model, x, cond), x, cond


def test_density_and_score_are_those_of_the_jacobian_by_autodiff(vectors):
    model, params, x, cond = vectors
    oracle = jax.jit(lambda x: log_prob_by_autodiff(model, params, x, cond))
    np.testing.assert_allclose(jax.jit(model.log_prob)(params, x, cond), oracle(x), rtol=1e-4, atol=1e-4)
    expected = jax.jit(jax.grad(lambda x: oracle(x).sum()))(x)
    np.testing.assert_allclose(jax.jit(score(model))(params, x, cond), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("label", range(NUM_CLASSES))
def test_density_given_each_label_integrates_to_one(vectors, label):
    model, params, *_ = vectors
    axis = jnp.linspace(-25, 25, 501)
    points = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_prob = jax.jit(model.log_prob)(params, points, jnp.full(len(points), label))
    assert jnp.exp(log_prob).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-3)


def test_labels_change_the_density_and_are_asked_for(vectors):
    model, params, x, cond = vectors
    assert jnp.abs(model.log_prob(params, x, cond) - model.log_prob(params, x, 1 - cond)).min() > 1e-3
    with pytest.raises(ValueError, match="label"):
        model.log_prob(params, x)


def test_samples_given_a_label_have_the_density_of_that_label(vectors):
    """By scipy: the base of the samples is standard normal under their label, and is not under the other one."""
    model, params, *_ = vectors
    num, cond = 4000, jnp.ones(4000, jnp.int32)
    x = model.sample(params, jax.random.key(3), num, cond)
    encode = jax.jit(model.encode)
    right, wrong = (np.asarray(encode(params, KEY, x, c)) for c in (cond, 1 - cond))
    assert min(stats.kstest(right[:, i], "norm").pvalue for i in range(2)) > 1e-3
    assert min(stats.kstest(wrong[:, i], "norm").pvalue for i in range(2)) < 1e-6


def test_training_reaches_the_entropy_of_a_banana():
    """x_1 ~ N(0, 1), x_2 = x_1^2 + 0.3 e has the entropy ln(2 pi e) + ln 0.3 in closed form."""
    entropy = np.log(2 * np.pi * np.e) + np.log(0.3)

    def draw(key, num):
        noise = jax.random.normal(key, (num, 2))
        return Batch(jnp.stack([noise[:, 0], noise[:, 0] ** 2 + 0.3 * noise[:, 1]], -1))

    model, tx = real_nvp(2, num_layers=4, features=(32,)), optax.adam(optax.cosine_decay_schedule(1e-2, 600))
    step = train_step(model, tx)

    @jax.jit
    def train():
        state = init_state(model, tx, KEY, draw(KEY, 4))
        state, _ = jax.lax.scan(lambda s, k: (step(s, draw(k, 256))[0], None), state, jax.random.split(KEY, 600))
        return model.loss(state.params, (), KEY, draw(jax.random.key(9), 20_000))[0]

    assert entropy - 0.02 < train() < entropy + 0.05


@pytest.fixture(scope="module", params=["labels", "vectors"])
def images(request):
    model = real_nvp_image((4, 4, 1), num_layers=2, features=4, num_blocks=1, num_classes=NUM_CLASSES)
    x, cond = jax.random.uniform(KEY, (4, 4, 4, 1)), jnp.arange(4) % NUM_CLASSES
    if request.param == "vectors":
        cond = jax.random.normal(KEY, (4, NUM_CLASSES))
    return model, perturbed(model, x, cond), x, cond


def test_density_of_images_is_that_of_the_jacobian_by_autodiff(images):
    """Logit, both kinds of layers, two squeezes and the factoring-out between them."""
    model, params, x, cond = images
    oracle = jax.jit(lambda x: log_prob_by_autodiff(model, params, x, cond))(x)
    np.testing.assert_allclose(jax.jit(model.log_prob)(params, x, cond), oracle, rtol=1e-4, atol=1e-3)


def test_images_and_their_latents_have_one_shape_and_decode_within_1e_4(images):
    model, params, x, cond = images
    latent = jax.jit(model.encode)(params, KEY, x, cond)
    assert latent.shape == x.shape
    np.testing.assert_allclose(jax.jit(model.decode)(params, latent, cond), x, atol=1e-4)


def test_a_fresh_image_flow_standardises_its_first_batch():
    model = real_nvp_image((4, 4, 1), num_scales=1, num_layers=2, features=4, num_blocks=1)
    x = jax.random.uniform(KEY, (256, 4, 4, 1)) ** 2
    z = jax.jit(lambda: model.encode(model.init(KEY, Batch(x))[0], KEY, x))()
    assert abs(z.mean()) < 1e-3
    assert z.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: real_nvp(1), "got 1"),
        (lambda: real_nvp(2, num_layers=0), "got 0"),
        (lambda: real_nvp_image((6, 8, 1)), "6, 8, 1"),
        (lambda: real_nvp_image((8, 8, 1), num_scales=0), "num_scales 0"),
        (lambda: real_nvp_image((8, 8, 1), alpha=0.5), "0.5"),
        (lambda: real_nvp_image((8, 8, 1), num_layers=0), "got 0"),
    ],
)
def test_bad_values_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
