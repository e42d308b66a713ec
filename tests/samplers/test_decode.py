"""The loop of positions against a loop in Python, the choices against hand-made tables, and who goes round the loop."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.distributions import categorical_conditional
from jaxgen.models.autoregressive.autoregressive import complete, search
from jaxgen.nets import causal
from jaxgen.nets.translator import Translator
from jaxgen.samplers import decode as decoding
from jaxgen.samplers.decode import conditionals, decode, draw_from, greedy, temperature, top_k, top_p
from tests.conformance.zoo import ENTRIES, NUM

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


AUTOREGRESSIVE = {
    entry.name: entry for entry in ENTRIES if entry.model.sample.__module__.startswith("jaxgen.models.autoregressive.")
}


@pytest.fixture
def rounds(monkeypatch):
    """The lengths of all loops of positions that are traced."""
    lengths, loop = [], decoding.scan_positions

    def counted(step, pick, cache, start, per_position, length):
        lengths.append(length)
        return loop(step, pick, cache, start, per_position, length)

    monkeypatch.setattr(decoding, "scan_positions", counted)
    return lengths


def test_all_families_are_among_the_autoregressive_models():
    families = (
        "made pixel_cnn gated_pixel_cnn pixel_cnn_plus pixel_rnn wavenet transformer image_transformer translator"
    )
    assert set(families.split()) < set(AUTOREGRESSIVE)


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_a_sample_is_drawn_by_the_one_loop(name, rounds):
    """Traced, not computed: one loop, as long as there are elements (whole pixels of PixelCNN++)."""
    model, (x, cond) = AUTOREGRESSIVE[name].model, AUTOREGRESSIVE[name].batch
    params, _ = jax.eval_shape(model.init, KEY, AUTOREGRESSIVE[name].batch)
    drawn = jax.eval_shape(lambda params, cond: model.sample(params, KEY, NUM, cond), params, cond)
    assert drawn.shape == x.shape
    assert rounds == [math.prod(x.shape[1:3] if name == "pixel_cnn_plus" else x.shape[1:])]


def test_a_completion_the_most_probable_text_and_a_beam_search_go_round_the_one_loop(rounds):
    """Traced, not computed; of a prompt of two tokens of six, and of four beams."""
    net, cond = Translator(4, 3, 2, 6, width=8, depth=1, num_heads=2), jnp.ones((2, 2), jnp.int32)
    params = jax.eval_shape(lambda: causal.init(net, KEY, jnp.zeros((2, 6), jnp.int32), cond))
    finish = complete(net, (6,), categorical_conditional(3, choose=greedy), end=0)
    drawn = jax.eval_shape(lambda params: finish(params, KEY, jnp.ones((2, 2), jnp.int32), cond), params)
    found, _ = jax.eval_shape(lambda params: search(net, 6, num_beams=4, end=0)(params, 2, cond), params)
    assert (drawn.shape, found.shape) == ((2, 6), (2, 4, 6))
    assert rounds == [6, 6]
