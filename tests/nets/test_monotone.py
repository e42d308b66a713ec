"""The increasing network, and what a gradient does to it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nets.monotone import Monotone


def test_it_rises_from_zero_to_one_whatever_its_parameters():
    """For random parameters of either sign; the slope by autodiff is positive."""
    net, t = Monotone(8), jnp.linspace(0, 1, 101)
    params = jax.jit(net.init)(jax.random.key(0), t)
    for seed in range(3):
        noise = lambda leaf, seed=seed: 3 * jax.random.normal(jax.random.key(seed), leaf.shape)  # noqa: E731
        drawn = jax.tree.map(noise, params)
        values = net.apply(drawn, t)
        np.testing.assert_allclose(values[jnp.array([0, -1])], [0, 1], atol=1e-6)
        assert np.all(np.diff(values) >= 0)
        slopes = jax.vmap(jax.grad(lambda t, drawn=drawn: net.apply(drawn, t)))(t)
        assert np.all(slopes >= 0)
        np.testing.assert_allclose(np.trapezoid(slopes, t), 1, atol=0.02)


def test_it_begins_nearly_straight():
    net, t = Monotone(), jnp.linspace(0, 1, 11)
    np.testing.assert_allclose(net.apply(jax.jit(net.init)(jax.random.key(0), t), t), t, atol=0.05)
