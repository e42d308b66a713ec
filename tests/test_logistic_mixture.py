"""Discretised logistics against scipy and enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from jaxgen.distributions import (
    categorical_conditional,
    compand,
    expand,
    level_cells,
    logistic_log_prob,
    logistic_mixture,
    with_end,
)

KEY = jax.random.key(0)


def compiled(density):
    """The same density, its two functions compiled."""
    return density._replace(log_prob=jax.jit(density.log_prob), sample=jax.jit(density.sample))


def mu_law(v, mu=255.0):
    """In float64."""
    return np.sign(v) * np.log1p(mu * np.abs(v)) / np.log1p(mu)


def edges(num_levels, mu=255.0):
    """The L - 1 edges between levels, on the scale of the mu-law, in float64."""
    return mu_law((2 * np.arange(num_levels - 1) + 2 - num_levels) / (num_levels - 1), mu)


def between(law, edges):
    """The probabilities of the cells, as differences of the smaller of the two tails, which do not cancel."""
    edges = np.concatenate([[-np.inf], edges, [np.inf]])
    upper = edges[:-1] > law.mean()
    return np.where(upper, law.sf(edges[:-1]) - law.sf(edges[1:]), law.cdf(edges[1:]) - law.cdf(edges[:-1]))


def test_cells_are_those_of_the_logistic_distribution():
    """Differences of scipy's distribution function in float64, far tails included."""
    mean, log_scale, levels = 0.3, -3.0, np.arange(16)
    found = logistic_log_prob(jnp.asarray(levels), jnp.asarray(mean), jnp.asarray(log_scale), 16)
    cells = between(stats.logistic(mean, np.exp(log_scale)), (2 * levels[:-1] + 1) / 15 - 1)
    np.testing.assert_allclose(found, np.log(cells), rtol=1e-4)


@pytest.mark.parametrize("num_levels", [16, 17], ids=["even", "odd"])
def test_companded_cells_are_those_of_the_logistic_distribution(num_levels):
    """Between edges that go through the mu-law; with an odd number of levels, one cell lies on both sides of 0."""
    mean, log_scale = 0.3, -3.0
    args = jnp.arange(num_levels), jnp.asarray(mean), jnp.asarray(log_scale), num_levels
    cells = between(stats.logistic(mean, np.exp(log_scale)), edges(num_levels))
    np.testing.assert_allclose(logistic_log_prob(*args, companding=255.0), np.log(cells), rtol=1e-4)


def test_the_mu_law_and_its_cells():
    """Of 16 bits, in float64: there, back, and widths of which the widest is 250 times the narrowest."""
    v = (2 * np.arange(65536) - 65535) / 65535
    np.testing.assert_allclose(compand(jnp.asarray(v, jnp.float32)), mu_law(v), rtol=1e-5)
    np.testing.assert_allclose(expand(jnp.asarray(mu_law(v), jnp.float32)), v, rtol=1e-5)
    lower, upper, width = (np.asarray(part)[1:-1] for part in level_cells(jnp.arange(65536.0), 65536, 255.0))
    every = edges(65536)
    np.testing.assert_allclose(lower, every[:-1], atol=1e-6)
    np.testing.assert_allclose(upper, every[1:], atol=1e-6)
    np.testing.assert_allclose(width, np.diff(every), rtol=1e-4)
    assert 240 < width.max() / width.min() < 256


@pytest.mark.parametrize("spread", [0.5, 3.0, 30.0])
def test_sums_to_one_over_256_values(spread):
    """For narrow, wide and far mixtures, most of them partly off the ends; gradients stay finite."""
    mixture = compiled(logistic_mixture(256, 5))
    output = spread * jax.random.normal(KEY, (20, 1, mixture.num_outputs))
    levels = jnp.arange(256)[None]
    log_prob = lambda output: mixture.log_prob(jnp.tile(levels, (20, 1)), jnp.tile(output, (1, 256, 1)))  # noqa: E731
    np.testing.assert_allclose(np.exp(np.asarray(log_prob(output), np.float64)).sum(1), 1, atol=1e-4)
    assert np.isfinite(jax.jit(jax.grad(lambda output: log_prob(output).sum()))(output)).all()


def test_sixteen_bits_may_be_narrow():
    """Over 65536 values; the most that one of them can have is the middle cell of scipy's distribution."""
    mixture = logistic_mixture(65536, 1, min_log_scale=-12.0)
    output = jnp.tile(jnp.array([0.0, 2 * 40000 / 65535 - 1, -30.0]), (65536, 1))
    p = np.exp(np.asarray(jax.jit(mixture.log_prob)(jnp.arange(65536), output), np.float64))
    np.testing.assert_allclose(p.sum(), 1, atol=2e-3)
    narrow = stats.logistic(0, np.exp(-12.0))
    np.testing.assert_allclose(p[40000], narrow.cdf(1 / 65535) - narrow.cdf(-1 / 65535), rtol=0.01)


def test_companded_sixteen_bits():
    """Over 65536 values: a narrow quiet component and a wide one, each scipy's distribution on the mu-law's scale."""
    mixture = logistic_mixture(65536, 2, min_log_scale=-12.0, log_scale=-2.0, companding=255.0)
    output = jnp.array([1.0, 0.0, 0.01, 0.3, -5.0, 0.5])
    found = jax.jit(mixture.log_prob)(jnp.arange(65536), jnp.tile(output, (65536, 1)))
    narrow, wide = (between(stats.logistic(m, np.exp(s - 2)), edges(65536)) for m, s in ((0.01, -5.0), (0.3, 0.5)))
    expected = special.expit(1.0) * narrow + special.expit(-1.0) * wide
    np.testing.assert_allclose(found, np.log(expected), atol=2e-3)
    np.testing.assert_allclose(np.exp(np.asarray(found, np.float64)).sum(), 1, atol=1e-4)


@pytest.mark.parametrize("num_levels", [8, 9], ids=["even", "odd"])
def test_companded_samples_are_of_their_probabilities(num_levels):
    """50000 samples by a chi-squared test, those that fall outside of [-1, 1] among them; gradients are finite."""
    mixture = compiled(logistic_mixture(num_levels, 2, companding=255.0))
    output = jax.random.normal(jax.random.key(3), (6,)).at[4:].add(-1.0)
    log_prob = lambda output: mixture.log_prob(jnp.arange(num_levels), jnp.tile(output, (num_levels, 1)))  # noqa: E731
    p = np.exp(np.asarray(log_prob(output), np.float64))
    np.testing.assert_allclose(p.sum(), 1, atol=1e-5)
    x = np.asarray(mixture.sample(KEY, jnp.tile(output, (50_000, 1))))
    assert stats.chisquare(np.bincount(x, minlength=num_levels), 50_000 * p / p.sum()).pvalue > 1e-3
    assert np.isfinite(jax.jit(jax.grad(lambda output: log_prob(output).sum()))(output)).all()


def test_pixels_of_three_channels():
    """All 64 pixels of four levels sum to one; channels depend on one another; 50000 samples by a chi-squared test."""
    mixture = compiled(logistic_mixture(4, 2, num_channels=3))
    assert mixture.num_outputs == 2 * 10
    output = jax.random.normal(jax.random.key(1), (20,))
    pixels = np.array(list(itertools.product(range(4), repeat=3)))
    log_prob = mixture.log_prob(jnp.asarray(pixels), jnp.tile(output, (64, 1)))
    p = np.exp(np.asarray(log_prob, np.float64))
    np.testing.assert_allclose(p.sum(), 1, atol=1e-5)
    x = np.asarray(mixture.sample(KEY, jnp.tile(output, (50_000, 1))))
    assert x.dtype == np.int32
    assert stats.chisquare(np.bincount(x @ [16, 4, 1], minlength=64), 50_000 * p / p.sum()).pvalue > 1e-3
    table = p.reshape(4, 4, 4)
    assert np.abs(table - np.einsum("a,b,c->abc", table.sum((1, 2)), table.sum((0, 2)), table.sum((0, 1)))).max() > 1e-2


def test_channels_come_in_their_order():
    """With one component, the marginal of the first channels does not depend on the parameters of a later one."""
    mixture = logistic_mixture(3, 1, num_channels=3)
    pixels = jnp.array(list(itertools.product(range(3), repeat=3)))
    output = jax.random.normal(KEY, (10,))

    def marginal(output):
        return jnp.exp(mixture.log_prob(pixels, jnp.tile(output, (27, 1)))).reshape(9, 3).sum(1)

    by_output = np.abs(np.asarray(jax.jit(jax.jacobian(marginal))(output))).sum(0)
    np.testing.assert_allclose(by_output[[3, 6, 8, 9]], 0, atol=1e-5)  # mean, scale and two coefficients of the third
    assert by_output[[1, 2, 4, 5, 7]].min() > 1e-3


def test_an_end_of_its_own():
    """The end has scipy's sigmoid, the levels share the rest as before, and 50000 samples pass a chi-squared test."""
    inner = compiled(logistic_mixture(5, 2))
    density, output = compiled(with_end(inner)), jax.random.normal(jax.random.key(2), (7,))
    assert (density.num_levels, density.num_outputs) == (6, 7)
    logs = np.asarray(density.log_prob(jnp.arange(6), jnp.tile(output, (6, 1))), np.float64)
    np.testing.assert_allclose(np.exp(logs[5]), special.expit(output[0] - np.log(5)), rtol=1e-5)
    within = inner.log_prob(jnp.arange(5), jnp.tile(output[1:], (5, 1)))
    np.testing.assert_allclose(logs[:5], np.log(special.expit(np.log(5) - output[0])) + within, rtol=1e-5)
    x = np.asarray(density.sample(KEY, jnp.tile(output, (50_000, 1))))
    p = np.exp(logs)
    assert stats.chisquare(np.bincount(x, minlength=6), 50_000 * p / p.sum()).pvalue > 1e-3
    assert np.isnan(density.log_prob(jnp.array([-1, 6]), jnp.tile(output, (2, 1)))).all()


def test_an_end_starts_as_likely_as_a_level():
    """At outputs of 0 all levels and the end are alike; over 65536 levels and the end of a mixture they sum to one."""
    alike = with_end(categorical_conditional(5)).log_prob(jnp.arange(6), jnp.zeros((6, 6)))
    np.testing.assert_allclose(alike, -np.log(6), rtol=1e-6)
    density = with_end(logistic_mixture(65536, 3, log_scale=-2.0, companding=255.0))
    output = jnp.zeros(density.num_outputs).at[1:].set(jax.random.normal(KEY, (9,)))
    p = np.exp(np.asarray(jax.jit(density.log_prob)(jnp.arange(65537), jnp.tile(output, (65537, 1))), np.float64))
    np.testing.assert_allclose(p.sum(), 1, atol=1e-4)
    np.testing.assert_allclose(p[65536], 1 / 65537, rtol=1e-5)


@pytest.mark.parametrize("inner", [logistic_mixture(5, 2), categorical_conditional(5)], ids=["mixture", "categorical"])
def test_an_end_that_is_certain_or_impossible(inner):
    """All of the mass, or none of it and the rest as before; and no gradient that is not finite."""
    density, output = with_end(inner), jax.random.normal(KEY, (1 + inner.num_outputs,))
    certain, impossible = jnp.array([True, False, False]), jnp.array([False, True, False])
    every = jnp.tile(jnp.arange(6)[:, None], (1, 3))

    def logs(output):
        ended = density.ending(jnp.tile(output, (3, 1)), end=5, certain=certain, impossible=impossible)
        return density.log_prob(every, jnp.tile(ended, (6, 1, 1)))

    found = np.asarray(jax.jit(logs)(output))
    within = inner.log_prob(jnp.arange(5), jnp.tile(output[1:], (5, 1)))
    np.testing.assert_array_equal(found[:, 0], [-np.inf] * 5 + [0])
    np.testing.assert_allclose(found[:, 1], [*within, -np.inf], rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], density.log_prob(jnp.arange(6), jnp.tile(output, (6, 1))), rtol=1e-5)
    finite = jax.jit(jax.grad(lambda output: jnp.where(np.isfinite(found), logs(output), 0).sum()))(output)
    assert np.isfinite(finite).all()


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="only tokens can have an end, not elements of 1 axes"):
        with_end(logistic_mixture(4, 2, num_channels=3))
    with pytest.raises(ValueError, match="the end of this density is 4, got 3"):
        with_end(logistic_mixture(4, 2)).ending(jnp.zeros(7), end=3)
    with pytest.raises(ValueError, match="got 1, 2 and 1"):
        logistic_mixture(1, 2)
    with pytest.raises(ValueError, match=r"companding must be at least 0, got -1\.0"):
        logistic_mixture(4, 2, companding=-1.0)
    with pytest.raises(ValueError, match="got 4, 0 and 3"):
        logistic_mixture(4, 0, num_channels=3)
