"""The loop of positions against a loop in Python, and the choices against hand-made tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.samplers.decode import conditionals, decode, draw_from, greedy, temperature, top_k, top_p

KEY = jax.random.key(0)
TABLE = jnp.log(jnp.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]))


def step(cache, previous, position):
    """A Markov chain that counts its steps."""
    return cache + 1, jnp.where(position == 0, TABLE[0], TABLE[previous]) + 0.0 * cache


def in_python(key, given, num_given):
    x, previous, keys = [], jnp.zeros(len(given), jnp.int32), jax.random.split(key, given.shape[1])
    for i in range(given.shape[1]):
        logits = jnp.tile(TABLE[0], (len(given), 1)) if i == 0 else TABLE[previous]
        previous = given[:, i] if i < num_given else jax.random.categorical(keys[i], logits)
        x.append(previous)
    return jnp.stack(x, 1)


@pytest.mark.parametrize("num_given", [0, 2, 4])
def test_the_loop(num_given):
    given = jnp.array([[0, 1, 2, 2], [2, 2, 1, 0]])
    draw = lambda key, logits: jax.random.categorical(key, jnp.broadcast_to(logits, (2, 3)))  # noqa: E731
    x = jax.jit(lambda num: decode(step, draw, KEY, jnp.zeros(()), given, num))(num_given)
    np.testing.assert_array_equal(x, in_python(KEY, given, num_given))


def test_conditionals_are_those_of_the_data():
    x = jnp.array([[0, 1, 2, 2], [2, 2, 1, 0]])
    counting = lambda cache, previous, position: (cache + 1, jnp.broadcast_to(step(0, previous, position)[1], (2, 3)))  # noqa: E731
    found = conditionals(counting, jnp.zeros(()), x)
    np.testing.assert_allclose(found[:, 0], np.tile(TABLE[0], (2, 1)))
    np.testing.assert_allclose(found[:, 1:], TABLE[x[:, :-1]])


def shares(choose, logits, num=20_000):
    x = jax.jit(jax.vmap(choose, (0, None)))(jax.random.split(KEY, num), logits)
    return np.bincount(x, minlength=len(logits)) / num


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((temperature(0.5),), [0.01, 0.09, 0.36, 0.0]),
        ((top_k(2),), [0.0, 0.3, 0.6, 0.0]),
        ((top_k(9),), [0.1, 0.3, 0.6, 0.0]),
        ((top_p(0.6),), [0.0, 0.0, 1.0, 0.0]),
        ((top_p(0.61),), [0.0, 0.3, 0.6, 0.0]),
        ((temperature(0.5), top_k(2)), [0.0, 0.09, 0.36, 0.0]),
    ],
)
def test_choices(filters, expected):
    """Shares of 20000 draws against probabilities that were filtered by hand."""
    logits = jnp.log(jnp.array([0.1, 0.3, 0.6, 1e-9]))
    expected = np.array(expected) / np.sum(expected)
    np.testing.assert_allclose(shares(draw_from(*filters), logits), expected, atol=0.015)


def test_greedy_takes_the_most_probable():
    np.testing.assert_array_equal(greedy(KEY, TABLE), [2, 0, 1])


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        temperature(0)
    with pytest.raises(ValueError, match="top_k needs at least 1 level, got 0"):
        top_k(0)
    with pytest.raises(ValueError, match=r"top_p needs a probability in \(0, 1\], got 1.5"):
        top_p(1.5)
