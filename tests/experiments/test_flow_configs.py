"""Flows and diffusions of images as the configs build them: noise of dequantisation by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import configs, data
from experiments.errors import UserError
from jaxgen.types import Batch

KEY = jax.random.key(0)
FLOW, NETWORK = {"features": 4, "num_scales": 1}, {"channels": 4, "levels": 1, "likelihood_steps": 1}
SIZES = {"real_nvp_digits": FLOW, "glow_mnist": FLOW, "diffusion_digits": NETWORK, "flow_matching_digits": NETWORK}
NOISES = ("uniform", "variational")


def built(name, **fields):
    """A model of 8x8 digits, its parameters at the start, eight of the digits, and all that tells its likelihood."""
    dataset, config = data.load("digits"), configs.load(name)
    experiment = config.build(config.Config(**{"data": "digits", **SIZES[name], **fields}), dataset)
    batch = Batch(jnp.asarray(dataset.train.x[:8]), jnp.asarray(dataset.train.cond[:8]))
    model = experiment.model
    fields = [of.log_weight or of.elbo for of in (model, experiment.likelihood) if of is not None]
    return model, jax.jit(model.init)(KEY, batch)[0], batch, fields


def bounds(fields, params, batch):
    """`[fields, n]`."""
    return jax.jit(lambda: jnp.stack([field(params, jax.random.key(1), *batch) for field in fields]))()


@pytest.mark.parametrize("name", SIZES)
def test_learned_noise_starts_as_uniform_noise(name):
    """One model with the same draws: to float32 the same bounds; with another noise, others."""
    (*_, uniform), (_, params, batch, variational) = (built(name, dequantization=each) for each in NOISES)
    expected, found = bounds(uniform, params["model"], batch), bounds(variational, params, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    moved = {**params, "noise": jax.tree.map(lambda leaf: leaf + 0.05, params["noise"])}
    assert np.abs(bounds(variational, moved, batch) - expected).min() > 0.01


@pytest.mark.parametrize("name", SIZES)
def test_learned_noise_is_learned_with_the_model(name):
    """A step along the gradient of its parameters alone raises the bound that the loss descends, for the same draws."""
    model, params, batch, (field, *_) = built(name, dequantization="variational", conditional=True)
    grads = jax.jit(jax.grad(lambda params: model.loss(params, (), jax.random.key(1), batch)[0]))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grads["noise"])))
    noise = jax.tree.map(lambda leaf, grad: leaf - 1e-2 * grad / size, params["noise"], grads["noise"])
    keys = jax.random.split(jax.random.key(2), 64)
    mean = jax.jit(lambda params: jax.vmap(lambda key: field(params, key, *batch))(keys).mean())
    assert mean({**params, "noise": noise}) > mean(params)


def test_an_unknown_noise_is_named():
    with pytest.raises(UserError, match="--dequantization must be one of uniform, variational, got 'gaussian'"):
        built("real_nvp_digits", dequantization="gaussian")
