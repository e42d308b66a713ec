"""A bijection both ways, beside the Jacobian of its forward map by autodiff."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

NUM_CLASSES = 3


class Measured(NamedTuple):
    """Data, base and restored data; log-determinants of both ways, and that of the forward Jacobian by autodiff."""

    x: Any
    z: Any
    restored: Any
    log_det: Any
    back: Any
    oracle: Any


def perturbed(params, scale=0.3):
    """Parameters far from a fresh start, whose networks may say nothing."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), max(len(leaves), 1))
    return tree.unflatten(
        [leaf + scale * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=False)]
    )


def prepared(bijection, shape, num=3):
    """Parameters far from a fresh start, data in the unit cube (which all bijections accept), and labels."""
    x = jax.random.uniform(jax.random.key(1), (num, *shape), minval=0.05, maxval=0.95)
    cond = jnp.arange(num) % NUM_CLASSES
    return jax.jit(lambda: perturbed(bijection.init(jax.random.key(2), x, cond)))(), x, cond


def measure(bijection, shape):
    """Both ways and the oracle, compiled together."""
    params, x, cond = prepared(bijection, shape)

    def flat(y, c):
        return bijection.forward_and_log_det(params, y.reshape(1, *x.shape[1:]), c[None])[0].reshape(-1)

    @jax.jit
    def both_ways(x):
        z, log_det = bijection.forward_and_log_det(params, x, cond)
        restored, back = bijection.inverse_and_log_det(params, z, cond)
        return x, z, restored, log_det, back, jax.vmap(jax.jacrev(flat))(x.reshape(len(x), -1), cond)

    *values, jacobian = both_ways(x)
    return Measured(*values, np.linalg.slogdet(np.asarray(jacobian, np.float64))[1])


def of_both_ways(cases, *, still=()):
    """Two tests of `{name: (bijection, shape)}`; those in `still` only move numbers to other places.

    The log-determinant is that of the Jacobian by autodiff. Forward and back agree within 1e-5 in float32, with a
    log-determinant by the inverse function theorem: minus that of the forward Jacobian.
    """
    measured = functools.cache(lambda name: measure(*cases[name]))

    @pytest.mark.parametrize("name", cases)
    def log_det(name):
        found = measured(name)
        assert found.log_det.shape == (3,)
        np.testing.assert_allclose(found.log_det, found.oracle, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("name", cases)
    def inverse(name):
        found = measured(name)
        if name not in still:
            assert jnp.abs(found.z - found.x).max() > 0.05, "the map under test does nothing"
        np.testing.assert_allclose(found.restored, found.x, atol=1e-5)
        np.testing.assert_allclose(found.back, -found.oracle, rtol=1e-4, atol=1e-4)

    return log_det, inverse
