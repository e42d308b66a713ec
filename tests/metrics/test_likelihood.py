import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.metrics.likelihood import mean_with_error


def test_mean_and_standard_error_equal_scipy():
    values = np.random.default_rng(0).normal(-83, 12, 500).astype(np.float32)
    mean, error = jax.jit(mean_with_error)(jnp.asarray(values))
    np.testing.assert_allclose(mean, values.astype(np.float64).mean(), rtol=1e-6)
    np.testing.assert_allclose(error, stats.sem(values.astype(np.float64)), rtol=1e-5)


def test_a_large_offset_does_not_swallow_the_spread():
    """Oracle: the same in float64. The naive E[v^2] - E[v]^2 is nowhere near in float32."""
    values = (np.random.default_rng(1).normal(0, 1, 4000) - 20_000).astype(np.float32)
    mean, error = mean_with_error(jnp.asarray(values))
    np.testing.assert_allclose(mean, values.astype(np.float64).mean(), rtol=1e-7)
    np.testing.assert_allclose(error, stats.sem(values.astype(np.float64)), rtol=1e-4)


def test_one_value_has_no_error():
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        mean_with_error(jnp.ones(1))
