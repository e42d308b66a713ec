"""PixelCNNs against autodiff, enumeration and their own full pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.distributions import categorical_conditional, logistic_mixture
from jaxgen.models.autoregressive.autoregressive import autoregressive, complete
from jaxgen.nets.pixel_cnn import GatedPixelCNN, PixelCNN
from jaxgen.nets.pixel_cnn_plus import PixelCNNPlus
from jaxgen.nets.pixel_rnn import PixelRNN
from tests.models.sequences import (
    KEY,
    assert_cached_equals_full,
    assert_completes_upper_rows,
    assert_strictly_triangular,
    assert_sums_to_one,
    derivatives,
    every,
    parameters,
)

KINDS = {
    "plain": PixelCNN,
    "gated": GatedPixelCNN,
    "rows": functools.partial(PixelRNN, diagonal=False),
    "diagonals": PixelRNN,
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@kinds
def test_cached_equals_full(kind):
    """Channels and classes included."""
    x, cond = jax.random.randint(KEY, (2, 4, 5, 2), 0, 3), jnp.array([0, 2])
    net = kind((4, 5, 2), 3, features=4, depth=2, side=5, num_classes=3)
    assert_cached_equals_full(net, parameters(net, x, cond), x, cond)


def jacobian(net, shape):
    """Absolute derivatives `[T, T]` of the logits of every channel by every channel."""
    return derivatives(net, parameters(net, jnp.zeros((1, *shape))), shape)


def test_causal_by_autodiff_without_a_blind_spot():
    """Channels included: each depends on every channel before it, the later ones of the same pixel on the earlier."""
    shape = (3, 3, 2)
    assert_strictly_triangular(jacobian(GatedPixelCNN(shape, 3, features=16, depth=4, side=3), shape))


@pytest.mark.parametrize(("channels", "depth"), [(1, 1), (1, 2), (2, 1)])
def test_diagonals_miss_the_last_pixel_of_the_row_above_alone(channels, depth):
    """By autodiff, where the first kernel does not reach it either: of that pixel the last channel, and no other."""
    height, width, side = 3, 6, 3
    shape = (height, width, channels)
    found = jacobian(PixelRNN(shape, 3, features=8, depth=depth, side=side), shape)
    expected = np.tri(len(found), k=-1).reshape(*shape, *shape)
    for row in range(1, height):
        expected[row, : width - 1 - side // 2, :, row - 1, width - 1, channels - 1] = 0
    np.testing.assert_array_equal(found > 0, expected.reshape(found.shape))


@pytest.mark.parametrize("kind", ["plain", "rows"])
def test_causal_by_autodiff_with_a_blind_spot(kind):
    """They see one column more to the right with every row up, and no more."""
    shape = (3, 4, 2)
    found = jacobian(KINDS[kind](shape, 3, features=16, depth=2, side=3), shape)
    assert np.all(np.triu(found) == 0)
    assert found[np.arange(1, 24), np.arange(23)][::2].min() > 0  # the second channel of a pixel sees the first
    seen = found.reshape(3, 4, 2, 3, 4, 2).sum((2, 5))
    assert seen[2, 0, 0, 3] == 0
    assert seen[2, 0, 0, 2] > 0


@kinds
def test_probabilities_sum_to_one(kind):
    """Over all 2x2 images of 4 levels."""
    shape, points = (2, 2, 1), every(4, 4).reshape(-1, 2, 2, 1)
    net = kind(shape, 4, features=4, depth=1, side=3)
    assert_sums_to_one(autoregressive(net, shape, categorical_conditional(4)), parameters(net, points[:1]), points)


@kinds
def test_a_completed_half_has_the_probabilities_of_the_model(kind):
    """By enumeration of all lower rows of 2x2 images of three levels."""
    assert_completes_upper_rows(kind((2, 2, 1), 3, features=4, depth=1, side=3), categorical_conditional(3))


def test_completions_of_one_upper_half_differ():
    net = GatedPixelCNN((4, 4, 1), 2, features=4, depth=1, side=3)
    given = jax.random.randint(KEY, (3, 2, 4, 1), 0, 2)
    params = parameters(net, given)
    finish = jax.jit(complete(net, (4, 4, 1), categorical_conditional(2)))
    x, again = finish(params, KEY, given), finish(params, jax.random.key(1), given)
    assert x.shape == (3, 4, 4, 1)
    np.testing.assert_array_equal(x[:, :2], given)
    np.testing.assert_array_equal(again[:, :2], given)
    assert not np.array_equal(x, again)


def plus(shape, num_scales, **options):
    """PixelCNN++ with a mixture of two logistics on four levels."""
    mixture = logistic_mixture(4, 2, num_channels=shape[-1])
    return mixture, PixelCNNPlus(shape, 4, mixture.num_outputs, 4, 1, num_scales, **options)


def test_plus_cached_equals_full():
    """Three resolutions, channels and classes included; with parameters of outputs below 10, which float32 resolves."""
    x, cond = jax.random.randint(KEY, (2, 8, 4, 2), 0, 4), jnp.array([0, 2])
    _, net = plus((8, 4, 2), 3, num_classes=3)
    assert_cached_equals_full(net, parameters(net, x, cond, scale=0.2), x, cond, element_ndim=1)


def test_plus_is_causal_by_autodiff_and_has_no_blind_spot():
    """Between pixels; within a pixel the mixture orders the channels."""
    _, net = plus((4, 4, 2), 2)
    params = parameters(net, jnp.zeros((1, 4, 4, 2)))
    assert_strictly_triangular(derivatives(net, params, (4, 4, 2), element_ndim=1))


def test_plus_probabilities_sum_to_one():
    """Over all 2x2 images of 4 levels, and all 1x2 images of two channels, with one scale."""
    for shape, num_scales in (((2, 2, 1), 2), ((1, 2, 2), 1)):
        points = every(4, 4).reshape(-1, *shape)
        mixture, net = plus(shape, num_scales)
        assert_sums_to_one(autoregressive(net, shape, mixture), parameters(net, points[:1]), points)


def test_a_half_completed_by_plus_has_the_probabilities_of_the_model():
    """By enumeration of all lower rows of 2x2 images of four levels."""
    mixture, net = plus((2, 2, 1), 2)
    assert_completes_upper_rows(net, mixture, scale=0.3)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"sides divisible by 4, got \(6, 8, 1\)"):
        plus((6, 8, 1), 3)
    for kind in (PixelCNN, GatedPixelCNN):
        with pytest.raises(ValueError, match=r"features divisible by the channels .* got \(4, 4, 3\), 4 and 3"):
            kind((4, 4, 3), 4, features=4, side=3)
        with pytest.raises(ValueError, match=r"odd side of kernels, got \(4, 4, 1\), 4 and 2"):
            kind((4, 4, 1), 4, features=4, side=2)
