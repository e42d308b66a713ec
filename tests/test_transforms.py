"""Changes of coordinates against densities by scipy; dequantisation against the exact mass of the cells."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from scipy import integrate, stats

from jaxgen import bijections as b
from jaxgen.core import DATA_AXIS, Model, bits_per_dim, importance_bound
from jaxgen.models.classical.ppca import ppca
from jaxgen.transforms import dequantize, pull_back
from jaxgen.types import Batch

KEY = jax.random.key(0)
MEAN, SCALE = 0.4, 0.2


def normal_log_prob(params, x, cond=None):
    """Independent N(params + cond, SCALE^2)."""
    mean = params if cond is None else params + cond.reshape(-1, *[1] * (x.ndim - 1))
    return jax.scipy.stats.norm.logpdf(x, mean, SCALE).reshape(len(x), -1).sum(-1)


def normal_model(**fields):
    """A model whose fields are their own closed forms, to see what becomes of each."""
    return Model(
        init=lambda key, batch: (jnp.asarray(MEAN), batch.x.mean()),
        loss=lambda params, carry, key, batch: (
            -normal_log_prob(params, batch.x, batch.cond).mean(),
            (carry + 1, {"inner": batch.x.mean()}),
        ),
        sample=lambda params, key, num, cond=None: params + SCALE * jax.random.normal(key, (num, 2)),
        carry_spec=PartitionSpec(DATA_AXIS),
        **fields,
    )


def noisy(params, key, x, cond=None):
    """ln p(x) plus standard normal noise of this key."""
    return normal_log_prob(params, x, cond) + jax.random.normal(key, (len(x),))


def test_pulled_back_density_is_that_of_scipy():
    """x = (z - 1) / -2, z ~ N(mean, C) is N((mean - 1) / -2, C / 4); events are reshaped on the way."""
    model = ppca(4, 2)
    pulled = pull_back(model, b.chain(b.reshape((2, 2), (4,)), b.affine(1, -2)))
    x = jax.random.normal(KEY, (5, 2, 2))
    params, _ = pulled.init(jax.random.key(1), Batch(x))
    loadings = np.asarray(params["loadings"], np.float64)
    covariance = (loadings @ loadings.T + np.eye(4)) / 4
    expected = stats.multivariate_normal(np.full(4, 0.5), covariance).logpdf(np.asarray(x).reshape(5, 4))
    np.testing.assert_allclose(pulled.log_prob(params, x), expected, rtol=1e-4)
    assert pulled.sample(params, KEY, 3).shape == (3, 2, 2)


def test_samples_of_a_pulled_back_model_have_its_distribution():
    """By scipy: x = sigmoid(z) of a normal z."""
    pulled = pull_back(normal_model(), b.logit(0.0))
    x = np.asarray(pulled.sample(jnp.asarray(MEAN), KEY, 2000)).reshape(-1)
    assert stats.kstest(np.log(x / (1 - x)), stats.norm(MEAN, SCALE).cdf).pvalue > 1e-3


def test_every_likelihood_field_is_pulled_back_by_the_jacobian_of_autodiff():
    model = normal_model(
        log_prob=normal_log_prob,
        energy=lambda params, x, cond=None: 7 - normal_log_prob(params, x, cond),
        log_weight=noisy,
        elbo=lambda params, key, x, cond=None: noisy(params, key, x, cond) - 3,
        score=lambda params, x, t, cond=None: jax.grad(lambda x: t * normal_log_prob(params, x, cond).sum())(x),
    )
    pulled = pull_back(model, b.logit(0.1))
    params, x, cond = jnp.asarray(MEAN), jax.random.uniform(KEY, (4, 3)), jnp.arange(4.0)

    def logit(x):
        return jnp.log(0.1 + 0.8 * x) - jnp.log(0.9 - 0.8 * x)

    def log_prob(x):
        return normal_log_prob(params, logit(x), cond) + jnp.log(jax.vmap(jax.vmap(jax.grad(logit)))(x)).sum(-1)

    exact, noise = log_prob(x), jax.random.normal(KEY, (4,))
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(pulled.log_prob(params, x, cond), exact, **close)
    np.testing.assert_allclose(pulled.energy(params, x, cond), 7 - exact, **close)
    np.testing.assert_allclose(pulled.log_weight(params, KEY, x, cond), exact + noise, **close)
    np.testing.assert_allclose(pulled.elbo(params, KEY, x, cond), exact + noise - 3, **close)
    expected = jax.grad(lambda x: log_prob(x).sum())(x)
    np.testing.assert_allclose(pulled.score(params, x, 1.0, cond), expected, rtol=1e-3, atol=1e-3)


def test_loss_metrics_and_carry_are_the_wrapped_models_at_z():
    model, params = normal_model(), jnp.asarray(MEAN)
    pulled = pull_back(model, b.affine(1, 2))
    batch, moved = Batch(jnp.array([[0.1], [0.7]])), Batch(jnp.array([[1.2], [2.4]]))
    chex.assert_trees_all_close(pulled.init(KEY, batch), model.init(KEY, moved))
    for function in (
        lambda m, d: m.loss(params, 0.0, KEY, d),
        lambda m, d: jax.grad(m.loss, has_aux=True)(params, 0.0, KEY, d),
    ):
        chex.assert_trees_all_close(function(pulled, batch), function(model, moved), rtol=1e-6)
    assert pulled.carry_spec == model.carry_spec


def test_fields_that_a_model_lacks_stay_none():
    for wrapped in (pull_back(normal_model(), b.reverse()), dequantize(normal_model(), 4)):
        for name in ("log_prob", "log_weight", "elbo", "energy", "score", "encode", "decode"):
            assert getattr(wrapped, name) is None, name


def test_encode_and_decode_go_through_the_bijection():
    model = normal_model(
        encode=lambda params, key, x, cond=None: 2 * x, decode=lambda params, latent, cond=None: latent / 2
    )
    pulled = pull_back(model, b.affine(1, 3))
    np.testing.assert_allclose(pulled.encode(None, KEY, jnp.ones((1, 1))), [[8.0]])
    np.testing.assert_allclose(pulled.decode(None, jnp.full((1, 1), 8.0)), [[1.0]])


def test_a_bijection_with_parameters_is_refused():
    with pytest.raises(ValueError, match="without parameters"):
        pull_back(normal_model(), b.actnorm()).init(KEY, Batch(jnp.eye(2)))


def weights(field, x, num=40_000):
    """`num` independent draws of a noisy likelihood field at one event x."""
    return np.asarray(jax.jit(field)(jnp.asarray(MEAN), KEY, jnp.tile(x, (num, 1))), np.float64)


def cell_masses(x, num_levels):
    edges = np.asarray(x, np.float64)
    upper, lower = (stats.norm(MEAN, SCALE).cdf((edges + i) / num_levels) for i in (1, 0))
    return upper - lower


def test_weights_average_to_the_mass_of_the_cell_and_the_bound_to_its_integral():
    """Masses by scipy's distribution function, E_u ln p by scipy's quadrature; both within 5 standard errors."""
    model = dequantize(normal_model(log_prob=normal_log_prob), 4)
    x = np.array([0, 2], np.uint8)
    log_mass = np.log(cell_masses(x, 4)).sum()
    w = np.exp(weights(model.log_weight, x))
    assert abs(w.mean() - np.exp(log_mass)) < 5 * w.std() / np.sqrt(len(w))

    def expected_log(level):
        return integrate.quad(lambda u: stats.norm(MEAN, SCALE).logpdf((level + u) / 4) - np.log(4), 0, 1)[0]

    bound = weights(model.elbo, x)
    assert abs(bound.mean() - sum(map(expected_log, x))) < 5 * bound.std() / np.sqrt(len(bound))
    assert bound.mean() < log_mass - 0.1


def test_importance_bound_of_integers_rises_to_the_mass_of_the_cell():
    model = dequantize(normal_model(log_prob=normal_log_prob), 4)
    x = np.array([0, 2], np.uint8)
    one, many = (weights(importance_bound(model, k), x, num=2000).mean() for k in (1, 100))
    exact = np.log(cell_masses(x, 4)).sum()
    assert one + 0.1 < many < exact + 0.01
    assert many > exact - 0.05


@pytest.mark.parametrize("num_levels", [2, 17, 256])
def test_uniform_model_needs_log2_of_the_levels_bits_per_dim(num_levels):
    model = dequantize(normal_model(log_prob=lambda params, x, cond=None: jnp.zeros(len(x))), num_levels)
    x = jnp.zeros((2, 8, 8, 1), jnp.uint8)
    np.testing.assert_allclose(bits_per_dim(model.elbo(None, KEY, x), 64), np.log2(num_levels), rtol=1e-5)


@pytest.mark.parametrize("num_levels", [2, 17, 256])
def test_noisy_data_stays_inside_its_cell_and_comes_back_exactly(num_levels):
    """In spite of float32: every level, 4000 draws each; the noise itself is uniform by scipy."""
    identity = normal_model(encode=lambda params, key, x, cond=None: x, decode=lambda params, latent, cond=None: latent)
    model = dequantize(identity, num_levels)
    x = jnp.tile(jnp.arange(num_levels, dtype=jnp.uint8), (4000, 1))
    y = model.encode(None, KEY, x)
    assert 0 < y.min() < y.max() < 1
    restored = model.decode(None, y)
    assert restored.dtype == jnp.uint8
    np.testing.assert_array_equal(restored, x)
    noise = np.asarray(y, np.float64) * num_levels - np.asarray(x)
    assert stats.kstest(noise[:, 0], "uniform").pvalue > 1e-3


def test_samples_are_floored_and_clipped_to_the_levels():
    inner = normal_model()._replace(
        sample=lambda params, key, num, cond=None: jnp.array([[-0.2, 0, 0.249, 0.25], [0.5, 0.999, 1, 1.3]])
    )
    x = dequantize(inner, 4).sample(None, KEY, 2)
    assert x.dtype == jnp.uint8
    np.testing.assert_array_equal(x, [[0, 0, 0, 1], [2, 3, 3, 3]])


def test_without_an_exact_density_the_wrapped_weight_and_bound_are_used():
    fields = {"log_weight": lambda *_: jnp.full(1, 5.0), "elbo": lambda *_: jnp.full(1, 3.0)}
    x, offset = jnp.zeros((1, 2), jnp.uint8), 2 * np.log(4)
    inexact = dequantize(normal_model(**fields), 4)
    np.testing.assert_allclose(inexact.log_weight(None, KEY, x), 5 - offset, rtol=1e-6)
    np.testing.assert_allclose(inexact.elbo(None, KEY, x), 3 - offset, rtol=1e-6)
    exact = dequantize(normal_model(**fields, log_prob=lambda *_: jnp.full(1, 7.0)), 4)
    np.testing.assert_allclose(exact.log_weight(None, KEY, x), 7 - offset, rtol=1e-6)
    np.testing.assert_allclose(exact.elbo(None, KEY, x), 7 - offset, rtol=1e-6)
    assert exact.log_prob is None


def test_loss_sees_fresh_noise_and_the_labels():
    model = dequantize(normal_model(), 4)
    batch = Batch(jnp.array([[1], [2]], jnp.uint8), jnp.array([0.0, 1.0]))
    losses = [model.loss(jnp.asarray(MEAN), 0.0, jax.random.key(i), batch) for i in (0, 0, 1)]
    means = [float(aux[1]["inner"]) for _, aux in losses]
    assert means[0] == means[1] != means[2]
    assert all(1.5 / 4 < mean < 2.5 / 4 for mean in means)
    unlabelled = model.loss(jnp.asarray(MEAN), 0.0, jax.random.key(0), Batch(batch.x))[0]
    assert abs(unlabelled - losses[0][0]) > 0.1


@pytest.mark.parametrize("field", ["init", "loss", "elbo", "encode"])
def test_reals_are_refused(field):
    fields = {"log_prob": normal_log_prob, "encode": lambda params, key, x, cond=None: x}
    model = dequantize(normal_model(**fields), 4)
    x = jnp.zeros((1, 2))
    args = {"init": (KEY, Batch(x)), "loss": (None, (), KEY, Batch(x))}.get(field, (None, KEY, x))
    with pytest.raises(ValueError, match="integers 0, ..., 3, got data of type float32"):
        getattr(model, field)(*args)


@pytest.mark.parametrize("num_levels", [1, 257])
def test_levels_out_of_range_are_named(num_levels):
    with pytest.raises(ValueError, match=str(num_levels)):
        dequantize(normal_model(), num_levels)
