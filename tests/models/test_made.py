"""MADE against autodiff, enumeration and its own full pass."""

import jax
import jax.numpy as jnp
import pytest

from jaxgen.distributions import categorical_conditional
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.nets.made import MADE
from tests.models.sequences import (
    KEY,
    assert_cached_equals_full,
    assert_strictly_triangular,
    assert_sums_to_one,
    derivatives,
    every,
    parameters,
)


def test_cached_equals_full():
    net, cond = MADE(3, (16, 16), (2, 3, 1), num_classes=2), jnp.array([0, 1])
    x = jax.random.randint(KEY, (2, 2, 3, 1), 0, 3)
    assert_cached_equals_full(net, parameters(net, x, cond), x, cond)


def test_causal_by_autodiff():
    net = MADE(3, (32, 32), (6,))
    assert_strictly_triangular(derivatives(net, parameters(net, jnp.zeros((1, 6))), (6,)))


def test_probabilities_sum_to_one():
    """Over all 2x2 images of 4 levels."""
    points, net = every(4, 4).reshape(-1, 2, 2, 1), MADE(4, (8,), (2, 2, 1))
    model = autoregressive(net, (2, 2, 1), categorical_conditional(4))
    assert_sums_to_one(model, parameters(net, points[:1]), points)


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
        MADE(1, (8,), (4,))
