"""Densities on the plane: normalised, and samples agree with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from experiments import data
from experiments.data import toy

NAMES = sorted(toy.DENSITIES)
_EDGES = np.linspace(-6, 6, 13)
_FINE = 40


def _grid() -> np.ndarray:
    """Midpoints of 480 x 480 cells of [-6, 6]^2."""
    middle = (np.arange(12 * _FINE) + 0.5) / _FINE - 6
    return np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)


def _check_counts(points: np.ndarray, masses: np.ndarray) -> None:
    """Chi-square test of the number of points in the unit squares; those that expect few are one cell."""
    counts = np.histogram2d(*points.T, bins=[_EDGES, _EDGES])[0]
    assert counts.sum() == len(points)
    likely = len(points) * masses >= 5
    observed = np.append(counts[likely], counts[~likely].sum())
    expected = np.append(masses[likely], masses[~likely].sum()) * (len(points) / masses.sum())
    filled = expected > 0
    assert observed[~filled].sum() == 0
    assert stats.chisquare(observed[filled], expected[filled]).pvalue > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_density_integrates_to_one_and_samples_agree(name):
    """Oracles: quadrature on a grid of p, p ln p and p (ln p)^2; chi-square test of 65000 samples against it."""
    dataset = data.load(f"toy_{name}")
    points = np.concatenate([part.x for part in dataset[1:4]])
    log_prob = np.asarray(jax.jit(toy.DENSITIES[name]().log_prob)(np.concatenate([_grid(), points])), np.float64)
    on_grid, on_points = np.split(log_prob, [len(_grid())])
    p, finite = np.exp(on_grid) / _FINE**2, np.maximum(on_grid, -1e3)
    assert abs(p.sum() - 1) < 1e-4
    _check_counts(points, p.reshape(12, _FINE, 12, _FINE).sum((1, 3)))
    variance = p @ finite**2 - (p @ finite) ** 2
    assert abs(on_points.mean() - p @ finite) < 5 * np.sqrt(max(variance, 0) / len(points)) + 1e-4


def test_eight_gaussians_against_scipy():
    x = np.random.default_rng(0).normal(size=(50, 2)) * 3
    angles = np.arange(8) * np.pi / 4
    parts = [stats.multivariate_normal([3 * np.cos(a), 3 * np.sin(a)], 0.09).pdf(x) for a in angles]
    np.testing.assert_allclose(
        jax.jit(toy.eight_gaussians().log_prob)(x), np.log(np.mean(parts, 0)), rtol=1e-4, atol=1e-4
    )


def test_rings_against_scipys_rice_distribution():
    """Oracle: |x| of a noisy circle follows Rice's law."""
    r = np.linspace(0.05, 4, 200)
    x = np.stack([r * np.cos(1), r * np.sin(1)], -1)
    law = np.mean([stats.rice(radius / 0.1, scale=0.1).pdf(r) for radius in (1, 2, 3)], 0)
    np.testing.assert_allclose(np.exp(jax.jit(toy.rings().log_prob)(x)), law / (2 * np.pi * r), rtol=1e-3, atol=1e-12)


def test_pinwheel_swirl_keeps_areas():
    """Oracle: autodiff Jacobian of the swirl."""
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda x: toy._rotate(x, 0.6 * jnp.linalg.norm(x)))))(points)
    np.testing.assert_allclose(np.linalg.det(jacobians), 1, rtol=1e-5)


def test_checkerboard_has_eight_squares():
    middles = np.stack(np.meshgrid(np.arange(-5, 6, 2.0), np.arange(-5, 6, 2.0), indexing="ij"), -1).reshape(-1, 2)
    log_prob = np.asarray(toy.checkerboard().log_prob(middles))
    assert np.isfinite(log_prob).sum() == 8
    np.testing.assert_allclose(special.logsumexp(log_prob) + np.log(4), 0, atol=1e-6)


def test_data_sets_are_real_and_split():
    dataset = data.load("toy_rings")
    assert [part.x.shape for part in dataset[1:4]] == [(50000, 2), (5000, 2), (10000, 2)]
    assert dataset.train.x.dtype == np.float32
    assert (dataset.num_levels, dataset.num_classes, dataset.train.cond) == (0, 0, None)
    assert not dataset.train.x.flags.writeable
