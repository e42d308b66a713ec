"""Group norm equals Flax's own, with the same tree of parameters: values, gradients, and sums in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxgen.nets.norm import GroupNorm


def case(shape, *, scale=3.0, shift=2.0):
    x = scale * jax.random.normal(jax.random.key(0), shape) + shift
    params = {"scale": jnp.linspace(0.5, 2.0, shape[-1]), "bias": jnp.linspace(-1.0, 1.0, shape[-1])}
    return x, params


@pytest.mark.parametrize("shape", [(3, 5, 4, 12), (2, 7, 12), (4, 12)])
@pytest.mark.parametrize("num_groups", [1, 3, 12])
def test_values_and_gradients_are_those_of_flax(shape, num_groups):
    x, params = case(shape)
    weights = jax.random.normal(jax.random.key(1), shape)

    def total(norm, params, x):
        y = norm.apply({"params": params}, x)
        return jnp.sum(weights * y), y

    value_and_grad = jax.jit(jax.value_and_grad(total, (1, 2), has_aux=True), static_argnums=0)
    ours, theirs = (value_and_grad(norm(num_groups), params, x) for norm in (GroupNorm, nn.GroupNorm))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), ours, theirs)


def test_parameters_have_the_names_and_values_of_flax():
    ours, theirs = (norm.init(jax.random.key(0), jnp.zeros((1, 2, 2, 8))) for norm in (GroupNorm(2), nn.GroupNorm(2)))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_constant_image_becomes_the_bias():
    _, params = case((1, 1, 1, 8))
    y = GroupNorm(2).apply({"params": params}, jnp.full((2, 3, 3, 8), 1e3))
    np.testing.assert_allclose(y, jnp.broadcast_to(params["bias"], y.shape), atol=1e-3)


def test_sums_of_halves_are_taken_in_float32():
    x, params = case((2, 28, 28, 8))
    y = GroupNorm(2, dtype=jnp.bfloat16).apply({"params": params}, x.astype(jnp.bfloat16))
    exact = GroupNorm(2).apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("num_groups", [0, 5])
def test_groups_that_do_not_divide_the_channels_are_an_error(num_groups):
    with pytest.raises(ValueError, match=f"must divide the 8 channels, got {num_groups}"):
        GroupNorm(num_groups).init(jax.random.key(0), jnp.zeros((1, 2, 2, 8)))
