"""The dense layer is Flax's own, and every product in it and its gradient is one of two matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxgen.nets.dense import Dense, dot_rows

SHAPES = [(5,), (3, 5), (2, 3, 5), (2, 3, 4, 5), (0, 3, 5)]


def total(layer, params, x):
    return jnp.sum(jnp.sin(layer.apply({"params": params}, x)))


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_values_and_gradients_are_those_of_flax(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    ours, theirs = Dense(7), nn.Dense(7)
    params = theirs.init(jax.random.key(1), x)["params"]
    jax.tree.map(np.testing.assert_array_equal, ours.init(jax.random.key(1), x)["params"], params)
    found, expected = (jax.value_and_grad(total, (1, 2))(layer, params, x) for layer in (ours, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def test_halves_stay_halves():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5), jnp.bfloat16)
    params = Dense(7, dtype=jnp.bfloat16).init(jax.random.key(1), x)
    ours = Dense(7, dtype=jnp.bfloat16).apply(params, x)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_array_equal(ours, nn.Dense(7, dtype=jnp.bfloat16).apply(params, x))


def test_every_product_is_one_of_matrices():
    x, w = jnp.ones((2, 3, 4, 5)), jnp.ones((5, 7))
    program = jax.make_jaxpr(jax.grad(lambda x, w: jnp.sum(dot_rows(x, w) ** 2), (0, 1)))(x, w)
    products = [equation for equation in program.jaxpr.eqns if equation.primitive.name == "dot_general"]
    assert len(products) == 3
    assert {variable.aval.ndim for equation in products for variable in equation.invars} == {2}
