"""What every causal network must obey, from oracles outside it: autodiff, enumeration, and its own full pass."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.models.autoregressive.autoregressive import stepwise
from jaxgen.nets import causal
from jaxgen.samplers import decode

KEY = jax.random.key(0)


def noisy(params, scale=0.5):
    """Parameters with noise added, so that nothing is at its special initial value."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return tree.unflatten([p + scale * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)])


def parameters(net, x, cond=None, scale=0.5):
    return jax.jit(lambda: noisy(causal.init(net, KEY, x, cond), scale))()


def assert_cached_equals_full(net, params, x, cond=None, element_ndim=0):
    """Every output of the cached step against the pass over all elements, to 1e-4."""
    element = x.shape[x.ndim - element_ndim :]
    flat = x.reshape(x.shape[0], -1, *element)

    @jax.jit
    def both(params, x, flat, cond):
        state = causal.start(net, params, flat[:, 0], cond)
        return decode.conditionals(stepwise(net, params), state, flat), causal.outputs(net, params, x, cond)

    cached, full = both(params, x, flat, cond)
    full = full.reshape(cached.shape)
    assert np.std(np.asarray(full), axis=(0, 1)).min() > 1e-3
    np.testing.assert_allclose(cached, full, atol=1e-4, rtol=1e-4)


def assert_strictly_triangular(jacobian):
    """Of absolute derivatives of outputs `[T, T]` by inputs: none on or above the diagonal, all of them below."""
    assert np.all(np.triu(jacobian) == 0)
    assert np.all(jacobian[np.tril_indices(len(jacobian), -1)] > 0)


def derivatives(net, params, shape, element_ndim=0):
    """Absolute derivatives `[T, T]` of the outputs of every element by every element, summed over several inputs.

    At one input alone, units may happen to be flat.
    """
    x = jax.random.normal(KEY, (8, *shape))
    found = jax.jit(jax.vmap(jax.jacobian(lambda x: causal.outputs(net, params, x[None], None)[0])))(x)
    num_axes = len(shape) - element_ndim
    by_input = np.abs(np.asarray(found)).sum(0).sum(num_axes)
    if element_ndim:
        by_input = by_input.sum(tuple(range(2 * num_axes, by_input.ndim)))
    side = int(np.sqrt(by_input.size))
    return by_input.reshape(side, side)


def every(num_levels, num):
    """All sequences of levels, `[num_levels^num, num]`."""
    return jnp.array(list(itertools.product(range(num_levels), repeat=num)), jnp.uint8)


def assert_sums_to_one(model, params, points, cond=None):
    log_prob = np.asarray(jax.jit(model.log_prob)(params, points, cond), np.float64)
    assert log_prob.std() > 1e-2
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1, atol=1e-4)
