import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import pairwise

from jaxgen.metrics.kernel import block_squared_mmd, gaussian_kernel, polynomial_kernel, squared_mmd


def features(seed, n, d=5, shift=0.0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, d)) + shift, jnp.float32)


def double_sum(kernel, x, y):
    """(1) written out as sums over pairs."""
    within = lambda a: np.mean([kernel(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j])  # noqa: E731
    return within(x) + within(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


@pytest.mark.parametrize(
    ("kernel", "oracle"),
    [
        (polynomial_kernel(), lambda x, y: pairwise.polynomial_kernel(x, y, degree=3, coef0=1)),
        (polynomial_kernel(degree=2), lambda x, y: pairwise.polynomial_kernel(x, y, degree=2, coef0=1)),
        (gaussian_kernel(bandwidth=1.7), lambda x, y: pairwise.rbf_kernel(x, y, gamma=1 / (2 * 1.7**2))),
    ],
)
def test_kernels_equal_scikit_learn(kernel, oracle):
    x, y = features(0, 7), features(1, 9)
    np.testing.assert_allclose(jax.jit(kernel)(x, y), oracle(x, y), rtol=1e-5)


def test_squared_mmd_equals_the_double_sums():
    x, y = features(2, 12), features(3, 15, shift=0.5)
    expected = double_sum(lambda a, b: (a @ b / 5 + 1.0) ** 3, np.asarray(x, float), np.asarray(y, float))
    np.testing.assert_allclose(jax.jit(lambda x, y: squared_mmd(polynomial_kernel(), x, y))(x, y), expected, rtol=1e-4)


def test_squared_mmd_of_gaussians_in_closed_form():
    """Gaussian kernel, data from N(0, I) and N(a, I): E k = (b / sqrt(b^2 + 2))^d exp(-|a|^2 / (2 b^2 + 4))."""
    x, y = features(4, 3000, d=2), features(5, 3000, d=2, shift=1.0)
    scale = 1 / (1 + 2)
    expected = 2 * scale - 2 * scale * np.exp(-2 / 6)
    mmd, error = block_squared_mmd(gaussian_kernel(bandwidth=1.0), x, y, block_size=100)
    assert abs(mmd - expected) < 4 * error
    assert error < 0.1 * expected


def test_blocks_equal_single_estimates_with_scipys_standard_error():
    x, y = features(6, 45), features(7, 41, shift=0.2)
    each = [squared_mmd(polynomial_kernel(), x[i : i + 10], y[i : i + 10]) for i in range(0, 40, 10)]
    mean, error = jax.jit(lambda x, y: block_squared_mmd(polynomial_kernel(), x, y, block_size=10))(x, y)
    np.testing.assert_allclose(mean, np.mean(each), rtol=1e-5)
    np.testing.assert_allclose(error, stats.sem(each), rtol=1e-5)


def test_bad_sizes_are_named():
    x = jnp.ones((10, 2))
    with pytest.raises(ValueError, match="at least 2 blocks, got 6 for 10 and 10"):
        block_squared_mmd(polynomial_kernel(), x, x, block_size=6)
    with pytest.raises(ValueError, match="got 10 and 1"):
        squared_mmd(polynomial_kernel(), x, x[:1])
    with pytest.raises(ValueError, match="degree must be at least 1, got 0"):
        polynomial_kernel(degree=0)
    with pytest.raises(ValueError, match="bandwidth must be positive, got -1"):
        gaussian_kernel(bandwidth=-1.0)
