"""MADE, in one order and in several, against autodiff, enumeration and its own full pass."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.distributions import categorical_conditional
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.models.autoregressive.made import made_ensemble
from jaxgen.nets import causal
from jaxgen.nets.made import MADE
from jaxgen.nets.masked import random_degrees
from jaxgen.samplers import decode
from jaxgen.types import Batch
from tests.models.sequences import (
    KEY,
    assert_cached_equals_full,
    assert_completes_upper_rows,
    assert_equal_outputs,
    assert_strictly_triangular,
    assert_sums_to_one,
    derivatives,
    every,
    parameters,
)

shapes = pytest.mark.parametrize("shape", [(6,), (2, 3, 1), (2, 2, 2)], ids=str)


@shapes
def test_cached_equals_full(shape):
    net, cond = MADE(3, (16, 16), shape, num_classes=2), jnp.array([0, 1])
    x = jax.random.randint(KEY, (2, *shape), 0, 3)
    assert_cached_equals_full(net, parameters(net, x, cond), x, cond)


@shapes
def test_causal_by_autodiff(shape):
    """Channels included: each depends on every channel before it."""
    net = MADE(3, (32, 32), shape)
    assert_strictly_triangular(derivatives(net, parameters(net, jnp.zeros((1, *shape))), shape))


def test_probabilities_sum_to_one():
    """Over all 2x2 images of 4 levels."""
    points, net = every(4, 4).reshape(-1, 2, 2, 1), MADE(4, (8,), (2, 2, 1))
    model = autoregressive(net, (2, 2, 1), categorical_conditional(4))
    assert_sums_to_one(model, parameters(net, points[:1]), points)


def test_a_completed_half_has_the_probabilities_of_the_model():
    """By enumeration of all lower rows of 2x2 images of three levels."""
    assert_completes_upper_rows(MADE(3, (16,), (2, 2, 1)), categorical_conditional(3))


NET = MADE(2, (16, 16), (5,))


def masks(k, net=NET):
    return random_degrees(jax.random.fold_in(KEY, k), 5, net.widths)


@pytest.mark.parametrize("num_classes", [0, 2])
@pytest.mark.parametrize("shape", [(2, 3, 1), (2, 2, 2)], ids=str)
def test_cached_equals_full_under_masks(shape, num_classes):
    """Position by position in three random orders, against the pass over all elements under the same masks, to 1e-4."""
    net, cond = MADE(3, (16, 16), shape, num_classes), jnp.array([0, 1]) if num_classes else None
    x, num = jax.random.randint(KEY, (2, *shape), 0, 3), math.prod(shape)
    params = parameters(net, x, cond)

    @jax.jit
    def both(key):
        masks = random_degrees(key, num, net.widths, conditional=num_classes > 0)
        elements = jnp.argsort(masks.order)
        flat = x.reshape(2, num)[:, elements]
        state = causal.start(net, params, flat[:, 0], cond, masks=masks)
        step = functools.partial(causal.step, net, params, masks=masks)
        full = net.apply({"params": params}, x, cond, masks=masks)
        return elements, decode.conditionals(step, state, flat), full.reshape(2, num, 3)[:, elements]

    orders = set()
    for key in jax.random.split(KEY, 3):
        elements, cached, full = both(key)
        assert_equal_outputs(np.asarray(cached), np.asarray(full))
        orders.add(tuple(np.asarray(elements).tolist()))
    assert len(orders) == 3


@pytest.mark.parametrize("k", range(3))
def test_masks_give_their_own_order(k):
    """By autodiff, with units of every degree: in the order of the masks, an output depends on all that is before it.

    It depends on nothing else.
    """
    net, x = NET.clone(widths=(64, 64)), jax.random.uniform(KEY, (5,))
    params, drawn = parameters(net, x[None]), masks(k, net)
    jacobian = jax.jacobian(lambda x: net.apply({"params": params}, x[None], masks=drawn)[0])(x)
    np.testing.assert_array_equal(jnp.abs(jacobian).max(1) > 0, drawn.order[None, :] < drawn.order[:, None])


def test_an_ensemble_is_the_mean_of_the_probabilities_in_each_order():
    """By the log-probabilities of one order each, which sum to one; the loss is that of one of them."""
    ensemble, points = made_ensemble(NET, num_masks=3), every(2, 5)
    params = parameters(NET, points[:1])

    def in_order(k):
        log_p = jax.nn.log_softmax(NET.apply({"params": params}, points, masks=masks(k)))
        return jnp.take_along_axis(log_p, points[..., None], -1).sum((-1, -2))

    each = jnp.stack([in_order(k) for k in range(3)])
    np.testing.assert_allclose(jnp.exp(each).sum(1), 1, rtol=1e-5)
    assert jnp.ptp(each, axis=0).max() > 0.1
    np.testing.assert_allclose(jnp.exp(ensemble.log_prob(params, points)), jnp.exp(each).mean(0), rtol=1e-4)
    losses = {float(ensemble.loss(params, (), jax.random.key(i), Batch(points))[0]) for i in range(20)}
    np.testing.assert_allclose(sorted(losses), sorted(-each.mean(1)), rtol=1e-5)


def test_an_ensemble_draws_what_it_says():
    """Frequencies of all 32 vectors against the probabilities; the orders of the draws of one call differ."""
    ensemble, points = made_ensemble(NET, num_masks=3), every(2, 5)
    params = parameters(NET, points[:1])
    drawn = jax.jit(ensemble.sample, static_argnums=2)(params, KEY, 20_000)
    found = np.bincount(drawn.astype(int) @ (2 ** np.arange(5)), minlength=32) / len(drawn)
    expected = np.zeros(32)
    expected[points @ (2 ** np.arange(5))] = jnp.exp(ensemble.log_prob(params, points))
    np.testing.assert_allclose(found, expected, atol=0.014)  # 4 standard errors of 20000 independent draws, at most


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
        MADE(1, (8,), (4,))
    with pytest.raises(ValueError, match="num_masks must be at least 1, got 0"):
        made_ensemble(NET, num_masks=0)
    model = made_ensemble(NET, num_masks=1)
    params = parameters(NET, jnp.zeros((1, 5)))
    with pytest.raises(ValueError, match=r"shape \(5,\), got \(4,\)"):
        model.log_prob(params, jnp.zeros((2, 4), int))
    with pytest.raises(ValueError, match="0 to 1"):
        model.log_prob(params, jnp.full((2, 5), 2))
