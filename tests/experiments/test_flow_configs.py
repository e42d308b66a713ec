"""Flows of images as the configs build them: noise of dequantisation by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configs, data
from experiments.errors import UserError
from jaxgen.types import Batch

KEY, SIZES = jax.random.key(0), {"features": 4, "num_scales": 1}
NOISES = ("uniform", "variational")


def built(name, **fields):
    """A flow of 8x8 digits, its parameters at the start, and eight of the digits."""
    dataset, config = data.load("digits"), configs.load(name)
    model = config.build(config.Config(**{"data": "digits", **SIZES, **fields}), dataset).model
    batch = Batch(jnp.asarray(dataset.train.x[:8]), jnp.asarray(dataset.train.cond[:8]))
    return model, jax.jit(model.init)(KEY, batch)[0], batch


def log_weight(model, params, batch):
    return jax.jit(model.log_weight)(params, jax.random.key(1), *batch)


@pytest.mark.parametrize("name", ["real_nvp_digits", "glow_mnist"])
def test_learned_noise_starts_as_uniform_noise(name):
    """One flow with the same draws: to float32 the same weights; with another noise, others of a like mean."""
    (uniform, _, batch), (variational, params, _) = (built(name, dequantization=each) for each in NOISES)
    expected, found = log_weight(uniform, params["model"], batch), log_weight(variational, params, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    moved = {**params, "noise": jax.tree.map(lambda leaf: leaf + 0.05, params["noise"])}
    assert np.abs(log_weight(variational, moved, batch) - expected).min() > 0.01


@pytest.mark.parametrize("name", ["real_nvp_digits", "glow_mnist"])
def test_learned_noise_is_learned_with_the_flow(name):
    """A step along the gradient of its parameters alone lowers what the loss estimates, -ln w, for the same draws."""
    model, params, batch = built(name, dequantization="variational", conditional=True)
    grads = jax.jit(jax.grad(lambda params: model.loss(params, (), jax.random.key(1), batch)[0]))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grads["noise"])))
    noise = jax.tree.map(lambda leaf, grad: leaf - 1e-2 * grad / size, params["noise"], grads["noise"])
    keys = jax.random.split(jax.random.key(2), 64)
    mean = jax.jit(lambda params: jax.vmap(lambda key: model.log_weight(params, key, *batch))(keys).mean())
    assert mean({**params, "noise": noise}) > mean(params)


def test_an_unknown_noise_is_named():
    with pytest.raises(UserError, match="--dequantization must be one of uniform, variational, got 'gaussian'"):
        built("real_nvp_digits", dequantization="gaussian")
