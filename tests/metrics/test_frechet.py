import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxgen.metrics.frechet import frechet_distance, frechet_from_moments


def oracle(mean_x, cov_x, mean_y, cov_y):
    """(1) in float64 with scipy's matrix square root of the product."""
    root = scipy.linalg.sqrtm(cov_x @ cov_y).real
    return ((mean_x - mean_y) ** 2).sum() + np.trace(cov_x + cov_y - 2 * root)


def features(seed, n, d, shift=0.0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / d**0.5 + shift, jnp.float32)


def moments(x):
    x = np.asarray(x, np.float64)
    return x.mean(0), np.cov(x, rowvar=False)


def test_both_forms_equal_scipy_sqrtm():
    x, y = features(0, 300, 12), features(1, 200, 12, shift=0.3)
    expected = oracle(*moments(x), *moments(y))
    np.testing.assert_allclose(jax.jit(frechet_distance)(x, y), expected, rtol=1e-5)
    given = [jnp.asarray(m, jnp.float32) for m in (*moments(x), *moments(y))]
    np.testing.assert_allclose(jax.jit(frechet_from_moments)(*given), expected, rtol=1e-5)


def test_fewer_examples_than_dimensions_in_float32():
    """Oracle: the float64 eigenvalues of C_x C_y, whose roots sum to the trace of the square root (both singular)."""
    x, y = features(2, 20, 50), features(3, 15, 50)
    (mean_x, cov_x), (mean_y, cov_y) = moments(x), moments(y)
    eigenvalues = np.sort(np.linalg.eigvals(cov_x @ cov_y).real)[-14:]
    expected = ((mean_x - mean_y) ** 2).sum() + np.trace(cov_x + cov_y) - 2 * np.sqrt(eigenvalues).sum()
    np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-5)


def test_diagonal_gaussians_in_closed_form():
    """Commuting covariances: the distance is |m|^2 plus the squared distance of the standard deviations."""
    std_x, std_y, mean = np.array([1.0, 2.0, 0.0]), np.array([0.5, 3.0, 0.0]), np.array([0.1, 0.0, 2.0])
    distance = frechet_from_moments(
        jnp.zeros(3), jnp.diag(std_x**2).astype(jnp.float32), jnp.asarray(mean, jnp.float32), jnp.diag(std_y**2)
    )
    np.testing.assert_allclose(distance, (mean**2).sum() + ((std_x - std_y) ** 2).sum(), rtol=1e-6)


def test_a_set_has_no_distance_from_itself_and_a_shift_adds_its_square():
    x = features(4, 400, 8)
    np.testing.assert_allclose(frechet_distance(x, x[::-1]), 0, atol=1e-4)
    np.testing.assert_allclose(frechet_distance(x, x + 2), 4 * 8, rtol=1e-4)


def test_one_example_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 examples, got 1 in y"):
        frechet_distance(jnp.ones((3, 2)), jnp.ones((1, 2)))
