"""Variational diffusion with exact denoisers, of Gaussians and of a few levels, and trained from scratch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import integrate, stats

from jaxgen.core import init_state, train_step
from jaxgen.models.diffusion.vdm import levels, reals, vdm
from jaxgen.nets.monotone import Monotone
from jaxgen.nets.time import TimeMLP
from jaxgen.types import Batch
from tests.training import fit, start

KEY = jax.random.key(0)
MEAN, VARIANCE = np.array([0.4, -0.3]), np.array([0.25, 1.5])
FIRST, LAST = -11.0, 10.0


class Gaussian(nn.Module):
    """The noise that x_t is expected to hold, for N(MEAN, diag VARIANCE), by conditioning the joint Gaussian."""

    @nn.compact
    def __call__(self, x, level, cond=None):
        del cond
        gamma = 2 * level[:, None]
        alpha, sigma = jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))
        return sigma * (x - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)


class Power(nn.Module):
    """A schedule without parameters."""

    exponent: float

    @nn.compact
    def __call__(self, t):
        return t**self.exponent


def gaussian(**options):
    return vdm(Gaussian(), (2,), gamma_min=FIRST, gamma_max=LAST, **options)


def data(num):
    return jnp.asarray(np.random.default_rng(0).normal(MEAN, np.sqrt(VARIANCE), (num, 2)), jnp.float32)


def initial(model, x):
    return jax.jit(lambda: model.init(KEY, Batch(x))[0])()


@pytest.mark.parametrize("schedule", [Power(1.0), Power(2.0), Monotone(8)], ids=["straight", "square", "monotone"])
def test_bound_of_the_exact_denoiser_is_the_likelihood(schedule):
    """Against scipy; whatever the shape of the schedule between its ends."""
    x = data(4)
    model = gaussian(schedule=schedule)
    draws = jax.jit(model.elbo)(initial(model, x), KEY, jnp.tile(x, (4000, 1))).reshape(-1, 4)
    expected = stats.norm(MEAN, np.sqrt(VARIANCE)).logpdf(np.asarray(x)).sum(-1)
    error = draws.std(0) / np.sqrt(len(draws))
    assert np.all(error < 0.1)
    np.testing.assert_array_less(abs(draws.mean(0) - expected), 4 * error + 1e-3)


def test_gradients_of_the_loss():
    """Network and ends: of the loss itself, by central differences; the schedule: of the squared error, likewise."""
    model, x = vdm(TimeMLP((8,)), (2,), schedule=Monotone(4), gamma_min=-3.0, gamma_max=2.0), data(1)
    loss = jax.jit(lambda params: model.loss(params, (), KEY, Batch(x))[0])
    metrics = jax.jit(lambda params: model.loss(params, (), KEY, Batch(x))[1][1])
    leaves, tree = jax.tree.flatten(initial(model, x))
    keys = jax.random.split(KEY, len(leaves))
    params = tree.unflatten([a + 0.3 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)])
    grads = jax.jit(jax.grad(loss))(params)
    error = metrics(params)["diffusion"]
    for name, factor in (("net", 1.0), ("ends", 1.0), ("schedule", 2 * error / 2)):  # of two dimensions
        directions = jax.tree.map(lambda a: jax.random.normal(jax.random.key(a.size), a.shape), params[name])
        ahead, behind = (
            loss({**params, name: jax.tree.map(lambda a, d, h=h: a + h * d, params[name], directions)})
            for h in (1e-3, -1e-3)
        )
        inner = sum((g * d).sum() for g, d in zip(*map(jax.tree.leaves, (grads[name], directions)), strict=True))
        assert abs(inner) > 1e-2
        np.testing.assert_allclose(inner, factor * (ahead - behind) / 2e-3, rtol=0.02, atol=2e-3)


def test_the_schedule_learns_the_least_variance():
    """Against the least E D^2 of all schedules, (int sqrt(E |error|^4) dgamma / 2)^2, by quadrature.

    The error of the exact denoiser is Gaussian, of variances a_i = alpha^2 v_i / (alpha^2 v_i + sigma^2).
    """
    model, x = gaussian(schedule=Monotone(16)), data(512)
    adam = optax.adam(optax.cosine_decay_schedule(3e-2, 400))
    labels = {"net": "fixed", "ends": "fixed", "schedule": "trained"}
    tx = optax.partition({"trained": adam, "fixed": optax.set_to_zero()}, labels)
    step = train_step(model, tx)

    @jax.jit
    def run(key):
        state = init_state(model, tx, key, Batch(x))
        advance = lambda state, _: (step(state, Batch(x))[0], None)  # noqa: E731
        return state.params, jax.lax.scan(advance, state, length=400)[0].params

    def second_moment(gamma):
        alpha, sigma = 1 / (1 + np.exp(gamma)), 1 / (1 + np.exp(-gamma))
        a = alpha * VARIANCE / (alpha * VARIANCE + sigma)
        return 2 * (a**2).sum() + a.sum() ** 2

    least = integrate.quad(lambda gamma: 0.5 * np.sqrt(second_moment(gamma)), FIRST, LAST)[0] ** 2
    straight = 0.25 * (LAST - FIRST) * integrate.quad(second_moment, FIRST, LAST)[0]
    before, after = run(KEY)
    many = data(100_000)
    draw = jax.jit(lambda params: gaussian(schedule=Monotone(16), num_bound_times=1).elbo(params, KEY, many))
    constant = -(np.log(2 * np.pi) + FIRST + 1) - 0.5 * np.exp(-LAST) * (np.asarray(many) ** 2).sum(-1)
    found = [np.mean((constant - np.asarray(draw(params), np.float64)) ** 2) for params in (before, after)]
    np.testing.assert_allclose(found[0], straight, rtol=0.1)
    assert least * 0.98 < found[1] < least + 0.2 * (straight - least)


def test_a_network_learns_a_gaussian():
    """The mean bound of fresh data against the entropy in closed form, within 0.05 nats per dimension.

    Training begins 3.2 nats per dimension below, and ends 0.01 below.
    """
    options = {"schedule": Monotone(8), "gamma_min": -6.0, "gamma_max": 6.0}
    model, finer = (vdm(TimeMLP((32,)), (2,), num_bound_times=num, **options) for num in (1, 32))
    draw = lambda key, num=256: Batch(MEAN + np.sqrt(VARIANCE) * jax.random.normal(key, (num, 2)))  # noqa: E731
    tx = optax.adam(optax.cosine_decay_schedule(2e-2, 300))
    params = fit(model, tx, draw, start(model, tx, draw), 300).params
    bound = np.asarray(jax.jit(finer.elbo)(params, KEY, draw(jax.random.key(5), 20_000).x), np.float64)
    entropy, error = stats.norm(MEAN, np.sqrt(VARIANCE)).entropy().sum(), bound.std() / np.sqrt(len(bound))
    assert error < 0.02
    assert -entropy - 0.1 < bound.mean() < -entropy + 4 * error


MARGIN = np.array([0.1, 0.2, 0.3, 0.4])


class FourLevels(nn.Module):
    """The expected noise where y is one of four points with probabilities MARGIN: Bayes' rule over the four."""

    @nn.compact
    def __call__(self, x, level, cond=None):
        del cond
        gamma, points = 2 * level[:, None, None], jnp.array([-0.75, -0.25, 0.25, 0.75])
        alpha, sigma = jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))
        noise = (x[..., None] - alpha * points) / sigma
        return (jax.nn.softmax(jnp.log(MARGIN) - 0.5 * noise**2) * noise).sum(-1)


def test_integers():
    """With the exact denoiser the bound is the table of probabilities, and samples follow it (chi-square)."""
    model = vdm(
        FourLevels(), (1,), reconstruction=levels(4), schedule=Power(1.0), gamma_min=-8.0, gamma_max=8.0, num_steps=500
    )
    x = jnp.arange(4, dtype=jnp.uint8)[:, None]
    params = initial(model, x)
    draws = jax.jit(model.elbo)(params, KEY, jnp.tile(x, (5000, 1))).reshape(-1, 4)
    error = draws.std(0) / np.sqrt(len(draws))
    assert np.all(error < 0.05)
    np.testing.assert_array_less(abs(draws.mean(0) - np.log(MARGIN)), 4 * error + 2e-3)
    found = jax.jit(lambda key: model.sample(params, key, 5000))(KEY)
    assert found.dtype == jnp.uint8
    assert stats.chisquare(np.bincount(found[:, 0], minlength=4), 5000 * MARGIN).pvalue > 1e-3


def test_levels_of_much_noise():
    """The probability of a level given z, by Bayes' rule with scipy's normal, and its mean over z by quadrature."""
    gamma, points = 0.3, np.array([-0.75, -0.25, 0.25, 0.75])
    scale = np.exp(0.5 * gamma)

    def integrand(y):
        weights = stats.norm(points, scale).pdf(y)
        return stats.norm(points[1], scale).pdf(y) * np.log(weights[1] / weights.sum())

    expected = integrate.quad(integrand, -10, 10)[0]
    x = jnp.ones((50_000, 1), jnp.uint8)
    np.testing.assert_allclose(jax.jit(levels(4).log_prob)(KEY, x, gamma).mean(), expected, rtol=0.01)


def test_score_and_samples_of_a_gaussian():
    """Against the gradient of the marginal, and the moments."""
    model = gaussian(schedule=Power(1.0), num_steps=500)
    t, x = jnp.array([0.3, 0.5, 0.6]), data(3)
    params = initial(model, x)
    gamma = FIRST + (LAST - FIRST) * np.asarray(t)[:, None]
    alpha, sigma = 1 / (1 + np.exp(gamma)), 1 / (1 + np.exp(-gamma))
    expected = -(x - np.sqrt(alpha) * MEAN) / (alpha * VARIANCE + sigma)
    np.testing.assert_allclose(jax.jit(model.score)(params, x, t), expected, rtol=5e-3, atol=2e-3)
    drawn = jax.jit(lambda key: model.sample(params, key, 20_000))(KEY)
    np.testing.assert_allclose(drawn.mean(0), MEAN, atol=0.04)
    np.testing.assert_allclose(drawn.var(0), VARIANCE, rtol=0.05)


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="gamma_min < gamma_max, got 1.0 and 1.0"):
        vdm(TimeMLP((8,)), (2,), gamma_min=1.0, gamma_max=1.0)
    with pytest.raises(ValueError, match="at least 1, got 0 and 8"):
        vdm(TimeMLP((8,)), (2,), num_steps=0)
    with pytest.raises(ValueError, match="at least 2 and at most 256, got 257"):
        levels(257)
    with pytest.raises(ValueError, match="expects integers, got data of type float32"):
        levels(4).to_reals(jnp.zeros(3))
    assert reals().to_reals(3.0) == 3.0
