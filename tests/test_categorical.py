"""The categorical density and the picking of one number from each row, against scipy and plain autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.special import log_softmax, softmax

from jaxgen.distributions import categorical_log_prob, pick

ROWS = jax.random.normal(jax.random.key(0), (5, 3, 7))
INDEX = jax.random.randint(jax.random.key(1), (5, 3), 0, 7)


def test_picked_numbers_are_those_of_indexing():
    expected = np.take_along_axis(np.asarray(ROWS), np.asarray(INDEX)[..., None], axis=-1)[..., 0]
    np.testing.assert_array_equal(jax.jit(pick)(ROWS, INDEX), expected)


@pytest.mark.parametrize("place", [-8, -1, 7, 100])
def test_what_is_in_no_row_is_nan_and_moves_nothing(place):
    index = INDEX.at[1, 1].set(place)
    picked = pick(ROWS, index)
    assert np.isnan(picked[1, 1])
    assert np.isfinite(picked).sum() == picked.size - 1
    gradient = jax.grad(lambda rows: jnp.nansum(pick(rows, index)))(ROWS)
    np.testing.assert_array_equal(gradient[1, 1], 0)
    assert gradient.sum() == picked.size - 1


def test_derivatives_are_those_of_finite_differences():
    """Of first and second order, forward and backward, mapped and not, in double precision."""
    with jax.enable_x64(new_val=True):
        rows = jnp.asarray(ROWS, jnp.float64)
        for function in (pick, jax.vmap(pick), lambda rows, index: categorical_log_prob(index, rows)):
            check_grads(
                jax.jit(lambda rows, f=function: jnp.sin(f(rows, INDEX))), (rows,), order=2, modes=("fwd", "rev")
            )


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("offset", [0.0, -1000.0, 1000.0])
def test_the_density_and_its_gradient_are_scipys(scale, offset):
    """Also where all logits are far from 0, to the rounding of the logits themselves."""
    logits = scale * ROWS + offset
    expected = log_softmax(np.asarray(logits, np.float64), axis=-1)
    at = np.eye(7)[np.asarray(INDEX)]
    found, gradient = jax.jit(jax.value_and_grad(lambda logits: categorical_log_prob(INDEX, logits).sum()))(logits)
    np.testing.assert_allclose(found, (at * expected).sum(), rtol=1e-6)
    np.testing.assert_allclose(gradient, at - softmax(np.asarray(logits, np.float64), axis=-1), atol=1e-6)


def test_impossible_levels_have_no_probability_and_no_gradient():
    """Logits of -inf, as masks make them."""
    logits = ROWS.at[..., 2].set(-jnp.inf)
    log_prob = jax.jit(categorical_log_prob)
    np.testing.assert_array_equal(log_prob(jnp.full((5, 3), 2), logits), -jnp.inf)
    gradient = jax.grad(lambda logits: log_prob(jnp.full((5, 3), 1), logits).sum())(logits)
    np.testing.assert_array_equal(gradient[..., 2], 0)
    assert np.isfinite(gradient).all()
