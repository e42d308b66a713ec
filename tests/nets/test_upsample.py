"""The convolution of a doubled image at the price of the small one: values and derivatives of the plain form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxgen.nets.upsample import conv_of_doubled, doubled

X, KERNEL = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 5, 4, 3), (3, 3, 3, 2)]))


def plain(x, kernel):
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        jnp.kron(x, jnp.ones((1, 2, 2, 1))), kernel, (1, 1), "SAME", dimension_numbers=axes
    )


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), a, b)


def test_values_are_those_of_the_doubled_image():
    close(conv_of_doubled(X, KERNEL), plain(X, KERNEL))


def test_derivatives_of_both_modes():
    y, pull = jax.vjp(conv_of_doubled, X, KERNEL)
    expected, expected_pull = jax.vjp(plain, X, KERNEL)
    close(pull(jnp.cos(y)), expected_pull(jnp.cos(expected)))
    tangents = (jnp.sin(X), jnp.cos(KERNEL))
    close(*(jax.jvp(f, (X, KERNEL), tangents)[1] for f in (conv_of_doubled, plain)))


def test_it_is_a_convolution_of_flax_with_the_same_parameters():
    ours, theirs = nn.Conv(4, (3, 3), conv_general_dilated=conv_of_doubled), nn.Conv(4, (3, 3))
    params = theirs.init(jax.random.key(0), doubled(X))
    close(ours.init(jax.random.key(0), X), params)
    close(ours.apply(params, X), theirs.apply(params, doubled(X)))


def test_on_a_cpu_nothing_of_the_size_of_the_doubled_image_is_convolved():
    compiled = jax.jit(conv_of_doubled).lower(X, KERNEL).compile()
    naive = jax.jit(plain).lower(X, KERNEL).compile()
    assert compiled.cost_analysis()["flops"] < 0.6 * naive.cost_analysis()["flops"]


def test_a_kernel_of_another_size_is_an_error():
    with pytest.raises(ValueError, match="expected a kernel of 3x3, got 5x3"):
        conv_of_doubled(X, jnp.zeros((5, 3, 3, 2)))
