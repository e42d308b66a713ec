"""Masked networks against their Jacobian by autodiff: strictly triangular in the stated order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets import causal
from jaxgen.nets.masked import MaskedMLP, degrees, random_degrees

NUM_DIMS, WIDTHS, K = 5, (16, 12), 2
ORDER = (3, 0, 4, 1, 2)


def jacobian(net, x, cond=None, masks=None):
    """Whether output i of any kind depends on input j, `[d, d]`, and the parameters."""
    params = net.init(jax.random.key(0), x, cond)
    derivative = jax.jit(jax.jacrev(lambda x: net.apply(params, x, cond, masks=masks)[0]))(x)[:, :, 0]
    return np.any(np.asarray(derivative) != 0, 1), params


def before(order):
    order = np.asarray(order)
    return order[None, :] < order[:, None]


@pytest.mark.parametrize("order", [None, ORDER])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_an_output_depends_on_all_inputs_before_it_and_on_no_other(order, num_classes):
    """The Jacobian by autodiff, with labels too."""
    x, cond = jax.random.normal(jax.random.key(1), (1, NUM_DIMS)), jnp.ones(1, jnp.int32)
    depends, _ = jacobian(MaskedMLP(WIDTHS, K, num_classes, order), x, cond if num_classes else None)
    np.testing.assert_array_equal(depends, before(order or range(NUM_DIMS)))


def under_random_masks(widths):
    """The order of each of ten masks, drawn inside `jit`, and which output depends on which input by autodiff.

    The parameters are the same.
    """
    net, x = MaskedMLP(widths, K), jax.random.normal(jax.random.key(1), (1, NUM_DIMS))
    params = net.init(jax.random.key(0), x)

    @jax.jit
    def one(key):
        masks = random_degrees(key, NUM_DIMS, widths)
        return masks.order, jax.jacrev(lambda x: net.apply(params, x, masks=masks)[0])(x)[:, :, 0]

    for key in jax.random.split(jax.random.key(2), 10):
        order, derivative = map(np.asarray, one(key))
        yield order, np.any(derivative != 0, 1)


def test_under_random_masks_an_output_depends_on_nothing_from_its_place_on():
    """With few units, of which some degrees have none, so that some outputs do not see all that is before them."""
    orders, num_missing = set(), []
    for order, depends in under_random_masks(WIDTHS):
        assert not np.any(depends & ~before(order))
        num_missing.append((before(order) & ~depends).sum())
        orders.add(tuple(order.tolist()))
    assert len(orders) == 10
    assert 0 < max(num_missing) < 5


def test_under_random_masks_of_many_units_an_output_depends_on_all_inputs_before_it():
    """With units of every degree in every layer, and on no other input."""
    for order, depends in under_random_masks((64, 64)):
        np.testing.assert_array_equal(depends, before(order))


def test_every_output_depends_on_a_vector_also_the_first_and_not_linearly():
    """The second derivative by autodiff of the first output, which sees no input."""
    net = MaskedMLP(WIDTHS, K, 4)
    x, cond = jax.random.normal(jax.random.key(1), (1, NUM_DIMS)), jax.random.normal(jax.random.key(2), (1, 4))
    params = jax.jit(net.init)(jax.random.key(0), x, cond)
    output = lambda cond: net.apply(params, x, cond)[0]  # noqa: E731
    first = jax.jit(jax.jacrev(output))(cond)[:, :, 0]
    assert np.all(np.any(np.asarray(first) != 0, -1))
    second = jax.jit(jax.hessian(lambda cond: output(cond)[0, 0]))(cond)
    assert np.abs(second).max() > 1e-3


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("widths", [(), (3,), (16, 12), (40, 7, 5)])
@pytest.mark.parametrize("masks_key", [None, 0, 1])
def test_place_by_place_it_is_the_full_pass(num_classes, widths, masks_key):
    """More units than degrees and fewer, in an order of its own and in random ones."""
    net, n = MaskedMLP(widths, K, num_classes, ORDER), 4
    x, cond = jax.random.normal(jax.random.key(1), (n, NUM_DIMS)), jnp.arange(n) % 3 if num_classes else None
    options, order = {}, jnp.array(ORDER)
    if masks_key is not None:
        masks = random_degrees(jax.random.key(masks_key), NUM_DIMS, widths, conditional=num_classes > 0)
        options, order = {"masks": masks}, masks.order
    params = jax.tree.map(lambda leaf: leaf + 0.1, net.init(jax.random.key(0), x, cond)["params"])

    @jax.jit
    def one_by_one(params, x):
        def settle(state, place):
            return causal.step(net, params, state, jnp.where(order < place, x, 0.0), place, **options)

        return jax.lax.scan(settle, causal.start(net, params, x, cond, **options), jnp.arange(NUM_DIMS))[1]

    full = net.apply({"params": params}, x, cond, **options)
    np.testing.assert_allclose(one_by_one(params, x), full[:, jnp.argsort(order)].swapaxes(0, 1), rtol=1e-5, atol=1e-5)


def test_one_input_leaves_a_constant():
    net, x = MaskedMLP((4,), 3), jnp.ones((2, 1))
    depends, params = jacobian(net, x[:1])
    assert not depends.any()
    assert net.apply(params, x).shape == (2, 1, 3)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match=r"got \(0, 0, 1\)"):
        degrees(3, (4,), order=(0, 0, 1))
    with pytest.raises(ValueError, match="cond=None"):
        MaskedMLP((4,), 1, 2).init(jax.random.key(0), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="width 2"):
        MaskedMLP((4,), 1, 2).init(jax.random.key(0), jnp.ones((1, 3)), jnp.ones((1, 3)))
