"""Markov kernels against enumerated transition matrices, closed-form constants and numpy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.kernels.ais import ais, log_mean_exp
from jaxgen.kernels.gibbs import gibbs
from jaxgen.kernels.kernel import Kernel, run
from jaxgen.kernels.langevin import langevin, mala


def chi_square_p(draws, probabilities):
    counts = np.bincount(np.asarray(draws).ravel(), minlength=len(probabilities))
    return stats.chisquare(counts, counts.sum() * probabilities / probabilities.sum()).pvalue


@pytest.fixture(scope="module")
def joint():
    """A joint table p(x, z) of 3 x 4 states."""
    return np.random.default_rng(0).dirichlet(np.ones(12)).reshape(3, 4)


def table_gibbs(joint):
    log = jnp.log(jnp.asarray(joint))
    return gibbs(
        lambda key, x: jax.random.categorical(key, log[x]), lambda key, z: jax.random.categorical(key, log.T[z])
    )


@pytest.mark.parametrize("start", [0, 1, 2])
def test_gibbs_steps_with_the_enumerated_probabilities(joint, start):
    """Oracle: P(z, x' | x) = p(z | x) p(x' | z), enumerated."""
    kernel = table_gibbs(joint)
    state, info = jax.jit(kernel.step)(jax.random.key(start), kernel.init(jnp.full(40000, start)))
    expected = (joint[start] / joint[start].sum()) * (joint / joint.sum(0))
    assert chi_square_p(state.position * 4 + info.latent, expected.ravel()) > 1e-3


def test_gibbs_converges_to_the_exact_marginal(joint):
    """Oracle: p(x), enumerated; chains that all start at state 0."""
    kernel = table_gibbs(joint)
    last = jax.jit(lambda key: run(kernel, key, kernel.init(jnp.zeros(40000, int)), 40))(jax.random.key(0))
    assert chi_square_p(last.position, joint.sum(1)) > 1e-3


def test_run_gives_every_step_a_key_of_its_own():
    """Oracle: draws of one seed collected by a loop over the split keys."""
    kernel = Kernel(
        lambda x: (x, 0), lambda key, state: ((state[0] + jax.random.normal(key, (3,)), state[1] + 1), None)
    )
    total, count = jax.jit(lambda key: run(kernel, key, kernel.init(jnp.zeros(3)), 5))(jax.random.key(1))
    draws = [jax.random.normal(key, (3,)) for key in jax.random.split(jax.random.key(1), 5)]
    assert count == 5
    assert len(np.unique(np.stack(draws))) == 15
    np.testing.assert_allclose(total, sum(draws), rtol=1e-6)
    chex.assert_trees_all_equal(run(kernel, jax.random.key(0), kernel.init(jnp.ones(3)), 0), (jnp.ones(3), 0))
    with pytest.raises(ValueError, match="-1"):
        run(kernel, jax.random.key(0), kernel.init(jnp.ones(3)), -1)


SCALE = 0.3


def gaussian_log_density(x, beta):
    """From exp(-x^2 / 2) to the narrower exp(-x^2 / 2 SCALE^2): the constants' ratio is SCALE."""
    return -0.5 * x**2 * ((1 - beta) + beta / SCALE**2)


def gaussian_transition(key, x, beta):
    """Autoregression that leaves the density at `beta` invariant."""
    scale = ((1 - beta) + beta / SCALE**2) ** -0.5
    return 0.6 * x + 0.8 * scale * jax.random.normal(key, x.shape)


@jax.jit
def gaussian_log_weights(key, betas):
    """Log-weights of 400 experiments of 100 chains each (all chains are independent)."""
    start_key, path_key = jax.random.split(key)
    start = jnp.where(betas[0] == 0, 1.0, SCALE) * jax.random.normal(start_key, (40000,))
    return ais(path_key, start, betas, gaussian_log_density, gaussian_transition).log_weight.reshape(400, 100)


def test_ais_interval_covers_the_closed_form_at_its_rate():
    """Oracle: ln SCALE. Of 400 seeds, intervals of 2 and 3 standard errors cover 95.4 % and 99.7 % if normal."""
    weights = gaussian_log_weights(jax.random.key(0), jnp.linspace(0, 1, 30))
    estimate = jax.jit(jax.vmap(log_mean_exp))(weights)
    off_by = np.abs(estimate.value - np.log(SCALE)) / estimate.standard_error
    assert np.mean(off_by <= 2) >= 0.92
    assert np.mean(off_by <= 3) >= 0.98
    np.testing.assert_array_equal(off_by <= 3, (estimate.lower <= np.log(SCALE)) & (np.log(SCALE) <= estimate.upper))
    np.testing.assert_allclose(np.std(estimate.value), np.mean(estimate.standard_error), rtol=0.15)


def test_ais_weights_are_unbiased_and_their_logarithms_are_not():
    """Oracle: E[w] = SCALE along a path of four points, too short for a good estimate of the logarithm."""
    weights = np.exp(gaussian_log_weights(jax.random.key(1), jnp.linspace(0, 1, 4)), dtype=np.float64).ravel()
    assert abs(weights.mean() - SCALE) < 4 * weights.std() / np.sqrt(weights.size)
    assert np.log(weights).mean() < np.log(SCALE) - 0.1


def test_ais_along_the_reversed_path_bounds_from_above():
    """Oracle: ln SCALE between the means of the forward and of the negative backward logarithms, both near it."""
    path = jnp.linspace(0, 1, 30)
    below = float(gaussian_log_weights(jax.random.key(2), path).mean())
    above = -float(gaussian_log_weights(jax.random.key(3), path[::-1]).mean())
    assert below + 0.02 < np.log(SCALE) < above - 0.02
    assert above - below < 1


def test_ais_with_two_points_is_importance_sampling():
    """Oracle: ln f_1(x_0) - ln f_0(x_0)."""
    x = jnp.linspace(-2, 2, 7)
    state = ais(jax.random.key(0), x, jnp.array([0.0, 1.0]), gaussian_log_density, gaussian_transition)
    np.testing.assert_allclose(state.log_weight, 0.5 * x**2 * (1 - 1 / SCALE**2), rtol=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        ais(jax.random.key(0), x, jnp.array([0.0]), gaussian_log_density, gaussian_transition)


def test_another_path_does_not_recompile():
    traced = jax.jit(chex.assert_max_traces(gaussian_log_weights.__wrapped__, n=1))
    first, second = (traced(jax.random.key(0), jnp.linspace(0, 1, 30) ** power) for power in (1, 2))
    assert np.abs(first - second).max() > 0


@pytest.mark.parametrize("offset", [0.0, 3000.0, -3000.0])
def test_log_mean_exp_against_numpy(offset):
    """Oracle: float64 mean and standard deviation of the weights."""
    log_weight = np.random.default_rng(0).normal(size=50)
    estimate = log_mean_exp(jnp.asarray(log_weight + offset, jnp.float32), num_errors=2.0)
    mean, error = np.exp(log_weight).mean(), stats.sem(np.exp(log_weight))
    np.testing.assert_allclose(estimate.value, offset + np.log(mean), rtol=1e-5 if offset == 0 else 1e-6)
    np.testing.assert_allclose(estimate.standard_error, error / mean, rtol=2e-3)
    np.testing.assert_allclose((estimate.upper - estimate.lower) / 4, error / mean, rtol=2e-3)


@pytest.mark.parametrize(("weights", "num_errors"), [(jnp.zeros(1), 3.0), (jnp.zeros(9), 0.0), (jnp.zeros(9), -1.0)])
def test_log_mean_exp_refuses(weights, num_errors):
    with pytest.raises(ValueError, match="at least two|positive"):
        log_mean_exp(weights, num_errors=num_errors)


VARIANCE, STEP = 2.0, 0.8


@pytest.mark.parametrize(
    ("kernel", "variance"),
    [
        (langevin(lambda x: -x / VARIANCE, STEP), VARIANCE / (1 - STEP / (2 * VARIANCE))),
        (mala(lambda x: -0.5 * (x**2).sum(-1) / VARIANCE, STEP), VARIANCE),
    ],
    ids=["langevin", "mala"],
)
def test_langevin_has_the_stationary_variance(kernel, variance):
    """Oracle: the variance of the linear recursion; the true one with the Metropolis correction. Start: a point."""
    last = jax.jit(lambda key: run(kernel, key, kernel.init(jnp.ones((20000, 2))), 60))(jax.random.key(0))
    second = np.mean(np.asarray(last.position, np.float64) ** 2)
    assert abs(second - variance) < 4 * variance * np.sqrt(2 / 40000)


def test_mala_accepts_by_the_ratio_of_densities():
    """Oracle: the acceptance probability from scipy's densities, for a density that is not Gaussian."""
    kernel = mala(lambda x: -(x**4).sum(-1), 0.1)
    old = kernel.init(jax.random.normal(jax.random.key(0), (500, 1)))
    new, info = jax.jit(kernel.step)(jax.random.key(1), old)
    moved = np.asarray(new.position != old.position)[:, 0]
    x, y = np.asarray(old.position, np.float64)[moved, 0], np.asarray(new.position, np.float64)[moved, 0]
    proposal = lambda to, at: stats.norm.logpdf(to, at - 0.4 * at**3, np.sqrt(0.2))  # noqa: E731
    expected = np.exp(np.minimum(0, x**4 - y**4 + proposal(x, y) - proposal(y, x)))
    np.testing.assert_allclose(np.asarray(info.acceptance)[moved], expected, rtol=1e-3, atol=1e-5)
    assert abs(moved.mean() - float(info.acceptance.mean())) < 4 * 0.5 / np.sqrt(500)
    chex.assert_trees_all_close(new, kernel.init(new.position), rtol=1e-6)
