import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.metrics.frechet import frechet_distance
from jaxgen.metrics.resampling import jackknife


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_of_means_with_one_row_per_group_is_scipys_standard_error():
    """Leaving out single rows, the jackknife of a mean is exactly the standard error of the mean."""
    x, y = normal(0, 30, 1), jnp.zeros((30, 1))
    value, error = jax.jit(lambda x, y: jackknife(lambda x, y: x.mean() - y.mean(), x, y, num_groups=30))(x, y)
    np.testing.assert_allclose(value, x.mean(), rtol=1e-6)
    np.testing.assert_allclose(error, stats.sem(np.asarray(x[:, 0], float)), rtol=1e-4)


def test_of_the_frechet_distance_is_the_spread_over_fresh_data():
    """Oracle: the standard deviation of the distance over 100 independent draws."""

    def draw(key):
        x, y = jax.random.normal(key, (2, 500, 3)) * jnp.array([[[1.0]], [[1.5]]])
        return jackknife(frechet_distance, x, y + 0.5)

    values, errors = jax.jit(lambda keys: jax.lax.map(draw, keys))(jax.random.split(jax.random.key(0), 100))
    np.testing.assert_allclose(errors.mean(), values.std(ddof=1), rtol=0.2)


def test_groups_must_not_be_empty():
    with pytest.raises(ValueError, match="got 10 for 5 and 20"):
        jackknife(frechet_distance, jnp.ones((5, 2)), jnp.ones((20, 2)))
