"""What every causal network must obey, from oracles outside it: autodiff, enumeration, and its own full pass."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxgen.models.autoregressive.autoregressive import autoregressive, complete, stepwise
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
    """Every output of the cached step against the pass over all elements, to 1e-4, and where it is infinite exactly."""
    element = x.shape[x.ndim - element_ndim :]
    flat = x.reshape(x.shape[0], -1, *element)

    @jax.jit
    def both(params, x, flat, cond):
        state = causal.start(net, params, flat[:, 0], cond)
        return decode.conditionals(stepwise(net, params), state, flat), causal.outputs(net, params, x, cond)

    cached, full = both(params, x, flat, cond)
    assert_equal_outputs(np.asarray(cached), np.asarray(full).reshape(cached.shape))


def assert_equal_outputs(cached, full):
    """Of outputs `[n, T, k]`, of which each varies: the infinite ones are the same, the others are to 1e-4."""
    finite = np.isfinite(full)
    assert np.std(full, axis=(0, 1), where=finite).min() > 1e-3
    np.testing.assert_array_equal(cached[~finite], full[~finite])
    assert not np.isnan(full).any()
    np.testing.assert_allclose(cached[finite], full[finite], rtol=0, atol=1e-4)


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


def assert_completes_upper_rows(net, conditional, scale=0.5):
    """Of two given rows: each stays, and 20000 lower rows of 2x2 images pass a chi-squared test of p(x) / p(row).

    They fail that of the other row, so that a completion that does not look at what is given is found.
    """
    shape, num_levels, num = (2, 2, 1), conditional.num_levels, 20_000
    points = every(num_levels, 4).reshape(-1, *shape)
    params = parameters(net, points[:1], scale=scale)
    p = np.exp(np.asarray(jax.jit(autoregressive(net, shape, conditional).log_prob)(params, points), np.float64))
    finish, rows, counts = jax.jit(complete(net, shape, conditional)), ([0, 1], [2, 0]), []
    for row in rows:
        x = np.asarray(finish(params, KEY, jnp.tile(jnp.array(row).reshape(1, 1, 2, 1), (num, 1, 1, 1))))
        assert np.all(x[:, 0, :, 0] == row)
        counts.append(np.bincount(x[:, 1, 0, 0] * num_levels + x[:, 1, 1, 0], minlength=num_levels**2))
    joint = np.array([p.reshape(num_levels, num_levels, -1)[*row] for row in rows])
    expected = num * joint / joint.sum(1, keepdims=True)
    assert expected.min() > 5
    assert np.all(expected.max(1) > 2 * expected.min(1))
    assert min(stats.chisquare(*both).pvalue for both in zip(counts, expected, strict=True)) > 1e-3
    assert max(stats.chisquare(*both).pvalue for both in zip(counts, expected[::-1], strict=True)) < 1e-6
