"""PPCA against scikit-learn, scipy and its own closed form."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from jaxgen.core import init_state, train_step
from jaxgen.models.classical import ppca
from jaxgen.types import Batch


@pytest.fixture(scope="module")
def digits():
    x = load_digits().data / 16.0
    return x[:1300], x[1300:]


@pytest.mark.parametrize("num_latents", [1, 10, 20])
def test_fit_equals_scikit_learn(digits, num_latents):
    train, test = digits
    params = ppca.fit(jnp.asarray(train, jnp.float32), num_latents, ddof=1)
    ours = ppca.log_prob(params, jnp.asarray(test, jnp.float32)).mean()
    assert abs(ours - PCA(num_latents).fit(train).score(test)) < 1e-4


def test_log_prob_equals_scipy():
    params = {
        "mean": jnp.array([0.3, -1.0, 2.0, 0.0]),
        "loadings": jax.random.normal(jax.random.key(0), (4, 2)),
        "log_scale": jnp.array(-0.7),
    }
    x = jax.random.normal(jax.random.key(1), (5, 4))
    cov = params["loadings"] @ params["loadings"].T + jnp.exp(-1.4) * jnp.eye(4)
    expected = stats.multivariate_normal(np.asarray(params["mean"]), np.asarray(cov)).logpdf(np.asarray(x))
    np.testing.assert_allclose(ppca.log_prob(params, x), expected, atol=1e-5)


def test_encode_draws_from_the_exact_posterior():
    """The moments of many draws against Gaussian conditioning of the joint covariance."""
    loadings, scale, x = jax.random.normal(jax.random.key(0), (5, 2)), 0.5, jax.random.normal(jax.random.key(1), (1, 5))
    params = {"mean": jnp.zeros(5), "loadings": loadings, "log_scale": jnp.log(scale)}
    draws = ppca.encode(params, jax.random.key(2), jnp.repeat(x, 100_000, 0))
    gain = loadings.T @ jnp.linalg.inv(loadings @ loadings.T + scale**2 * jnp.eye(5))
    np.testing.assert_allclose(draws.mean(0), (gain @ x[0]), atol=5e-3)
    np.testing.assert_allclose(jnp.cov(draws.T), jnp.eye(2) - gain @ loadings, atol=5e-3)


@pytest.mark.parametrize("num_latents", [1, 10, 20])
def test_gradient_training_reaches_the_closed_form(digits, num_latents):
    train = jnp.asarray(digits[0], jnp.float32)
    model, tx = ppca.ppca(64, num_latents), optax.adam(optax.cosine_decay_schedule(0.02, 2000))
    batch = Batch(train)
    state = init_state(model, tx, jax.random.key(0), batch)
    step = train_step(model, tx)
    run = jax.jit(lambda state: jax.lax.scan(lambda s, _: (step(s, batch)[0], None), state, None, length=2000)[0])
    closed = ppca.fit(train, num_latents)
    gap = ppca.log_prob(closed, train).mean() - ppca.log_prob(run(state).params, train).mean()
    assert -1e-4 < gap < 1e-3


def test_samples_have_the_model_covariance():
    params = ppca.fit(jax.random.normal(jax.random.key(0), (50, 3)) @ jnp.diag(jnp.array([3.0, 1.0, 0.2])), 1)
    x = ppca.ppca(3, 1).sample(params, jax.random.key(1), 200_000)
    cov = params["loadings"] @ params["loadings"].T + jnp.exp(2 * params["log_scale"]) * jnp.eye(3)
    chex.assert_trees_all_close(jnp.cov(x.T), cov, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("num_latents", [0, 64])
def test_number_of_latents_is_checked(num_latents):
    with pytest.raises(ValueError, match=f"got {num_latents}"):
        ppca.ppca(64, num_latents)
