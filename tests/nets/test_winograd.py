"""Convolutions by pairs of pixels: values and derivatives of the plain form, and where they are used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxgen.nets.blocks import ResidualBlock
from jaxgen.nets.winograd import Conv, by_pairs

KERNEL = jax.random.normal(jax.random.key(1), (3, 3, 3, 2))


def image(*shape):
    return jax.random.normal(jax.random.key(0), shape)


def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), a, b)


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (2, 4, 5, 3), (1, 1, 2, 3), (2, 3, 1, 3)])
def test_values_and_derivatives_are_those_of_the_sum(shape):
    @functools.partial(jax.jit, static_argnums=0)
    def both(f, x):
        y, pull = jax.vjp(f, x, KERNEL)
        return y, pull(jnp.cos(y)), jax.jvp(f, (x, KERNEL), (jnp.sin(x), jnp.cos(KERNEL)))[1]

    close(*(both(f, image(*shape)) for f in (by_pairs, plain)))


def test_it_rounds_a_few_times_as_much_as_the_sum():
    x, kernel = image(4, 14, 14, 64), jax.random.normal(jax.random.key(1), (3, 3, 64, 64)) / 24
    around = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2))
    exact = np.einsum("nhwcij,ijcd->nhwd", windows, np.asarray(kernel, np.float64))
    errors = [np.sqrt(np.square(f(x, kernel) - exact).mean()) for f in (by_pairs, plain)]
    assert errors[0] < 5 * errors[1]
    assert errors[0] < 1e-6


def test_wide_layers_of_a_network_have_a_third_fewer_products():
    x = image(1, 16, 16, 64)
    params = nn.Conv(64, (3, 3)).init(jax.random.key(0), x)

    def flops(layer):
        return jax.jit(layer.apply).lower(params, x).compile().cost_analysis()["flops"]

    assert 0.6 < flops(Conv(64, (3, 3))) / flops(nn.Conv(64, (3, 3))) < 0.75


def test_it_is_a_convolution_of_flax_with_the_same_parameters():
    x = image(2, 6, 6, 64)
    ours, theirs = Conv(64, (3, 3)), nn.Conv(64, (3, 3))
    params = theirs.init(jax.random.key(0), x)
    close(ours.init(jax.random.key(0), x), params)
    close(ours.apply(params, x), theirs.apply(params, x))


def test_blocks_of_many_channels_are_differentiable_forward_over_reverse():
    block, x, e = ResidualBlock(64), image(2, 6, 6, 64), image(2, 8)
    params = jax.jit(block.init)(jax.random.key(2), x, e)

    def slope(params, x):
        return jax.jvp(lambda x: block.apply(params, x, e).mean(), (x,), (jnp.cos(x),))[1]

    gradients = jax.jit(jax.grad(slope))(params, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_size": (5, 5)},
        {"kernel_size": (3, 1)},
        {"strides": 2},
        {"padding": "VALID"},
        {"padding": "CIRCULAR"},
        {"padding": ((0, 2), (1, 1))},
        {"kernel_dilation": 2},
        {"input_dilation": 2, "padding": ((1, 1), (1, 1))},
        {"feature_group_count": 64},
        {"dtype": jnp.bfloat16},
        {"features": 32},
    ],
)
def test_every_other_convolution_is_the_plain_one_to_the_bit(changes):
    x, given = image(2, 6, 6, 64), {"features": 64, "kernel_size": (3, 3)} | changes
    params = nn.Conv(**given).init(jax.random.key(0), x)
    np.testing.assert_array_equal(Conv(**given).apply(params, x), nn.Conv(**given).apply(params, x))


def test_a_sound_is_convolved_by_the_plain_form():
    x = image(2, 9, 64)
    params = Conv(64, (3,)).init(jax.random.key(0), x)
    close(Conv(64, (3,)).apply(params, x), nn.Conv(64, (3,)).apply(params, x))


def test_a_kernel_of_another_size_is_an_error():
    with pytest.raises(ValueError, match="expected a kernel of 3x3, got 5x3"):
        by_pairs(image(1, 4, 4, 3), jnp.zeros((5, 3, 3, 2)))
