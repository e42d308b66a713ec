"""WaveNet against autodiff, enumeration and its own full pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.distributions import categorical_conditional, categorical_ending, logistic_mixture, with_end
from jaxgen.models.autoregressive.autoregressive import autoregressive, stepwise
from jaxgen.nets import causal
from jaxgen.nets.wavenet import WaveNet, mu_law, mu_law_inverse
from jaxgen.samplers import decode
from tests.models.sequences import (
    KEY,
    assert_cached_equals_full,
    assert_strictly_triangular,
    assert_sums_to_one,
    derivatives,
    every,
    parameters,
)


def net(length, num_levels, num_outputs, **options):
    return WaveNet(length, num_levels, num_outputs, features=4, skip_features=16, dilations=(1, 2, 4, 1), **options)


@pytest.mark.parametrize("companding", [0.0, 255.0], ids=["told_once", "companded_too"])
def test_cached_equals_full(companding):
    """With a digit, a speaker and a slower sequence; longer than any ring."""
    sound = net(12, 9, 6, num_classes=(3, 2), num_local=2, companding=companding)
    x = jax.random.randint(KEY, (2, 12), 0, 9)
    cond = (jnp.array([[0, 1], [2, 0]]), jax.random.normal(KEY, (2, 4, 2)))
    params = parameters(sound, x, cond)
    assert_cached_equals_full(sound, params, x, cond)
    outputs = jax.jit(lambda cond: causal.outputs(sound, params, x, cond))
    for other in ((cond[0].at[0, 1].set(0), cond[1]), (cond[0], cond[1].at[0, 1].add(1))):
        changed = np.abs(outputs(other) - outputs(cond)).max(-1) > 1e-6
        assert changed[0].any()
        assert not changed[1].any()


def test_samples_are_told_by_the_mu_law_too():
    """Without the weights of one scale, the network that is told the other alone, by the formula in numpy."""
    both, plain = net(12, 65536, 6, companding=255.0), net(12, 65536, 6)
    x = 32768 + jax.random.randint(KEY, (2, 12), -300, 300)
    params = parameters(both, x)
    weights = params["Dense_0"]["kernel"]
    v = (2 * np.asarray(x, np.float64) - 65535) / 65535
    companded = np.sign(v) * np.log1p(255 * np.abs(v)) / np.log(256)
    outputs = jax.jit(causal.outputs, static_argnums=0)
    for row, scale in enumerate((v, companded)):
        with_row = lambda kernel: params | {"Dense_0": params["Dense_0"] | {"kernel": kernel}}  # noqa: E731
        found = outputs(both, with_row(weights.at[1 - row].set(0)), x, None)
        told = jnp.asarray((scale + 1) / 2 * 65535, jnp.float32)
        expected = outputs(plain, with_row(weights[row : row + 1]), told, None)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_local_condition_is_in_time():
    """By autodiff: on its own frame, of three samples, and the earlier ones that the dilations reach, no other."""
    sound, x = net(12, 9, 6, num_local=1), jnp.zeros((8, 12), jnp.int32)
    sequence = jax.random.normal(KEY, (8, 4, 1))
    params = parameters(sound, x, (None, sequence))
    f = jax.jit(jax.jacobian(lambda sequence: causal.outputs(sound, params, x, (None, sequence)).sum(0)))
    depends = np.abs(f(sequence)).sum((1, 2, 4)) > 0
    time, frame = np.arange(12)[:, None], np.arange(4)[None]
    reach = 2 + 4 + 1  # of the layers after the first
    np.testing.assert_array_equal(depends, (frame <= time // 3) & (frame >= np.maximum(time - reach, 0) // 3))


def test_causal_by_autodiff():
    sound = net(7, 9, 6)
    params = parameters(sound, jnp.zeros((1, 7)))
    assert_strictly_triangular(derivatives(sound, params, (7,)))


@pytest.mark.parametrize("conditional", [categorical_conditional(3), logistic_mixture(3, 2)], ids=["mu_law", "mixture"])
def test_probabilities_sum_to_one(conditional):
    """Over all sounds of five samples of three levels."""
    points = every(3, 5)
    sound = net(5, 3, conditional.num_outputs)
    assert_sums_to_one(autoregressive(sound, (5,), conditional), parameters(sound, points[:1]), points)


TOLD = pytest.mark.parametrize(
    "conditional", [categorical_conditional(4), with_end(logistic_mixture(3, 2))], ids=["mu_law", "mixture"]
)


def spoken(conditional, length):
    """A network told when the sound is over."""
    return net(length, 4, conditional.num_outputs, num_local=2, ending=functools.partial(conditional.ending, end=3))


def over_at(frame, frames, num):
    """What it is told of sounds that are over at a frame."""
    told = jax.nn.one_hot((jnp.arange(frames) < frame).astype(jnp.int32), 2)
    return None, jnp.tile(told, (num, 1, 1))


@functools.cache
def short_sounds(conditional):
    """The model of six samples, compiled: its parameters, ln p of points, and the gradient of their sum."""
    sound = spoken(conditional, 6)
    params = parameters(sound, jnp.zeros((1, 6), jnp.int32), over_at(0, 3, 1))
    log_prob = autoregressive(sound, (6,), conditional, end=3).log_prob
    return params, jax.jit(log_prob), jax.jit(jax.grad(lambda *args: log_prob(*args).sum()))


@TOLD
@pytest.mark.parametrize("over", [0, 1, 2, 3])
def test_an_end_comes_when_it_is_told(over, conditional):
    """Enumeration: all sounds of six samples whose ends stand in the last frame, of two, that is not over, or after."""
    (params, log_prob, gradient), points = short_sounds(conditional), every(4, 6)
    told = over_at(over, 3, len(points))
    p = np.exp(log_prob(params, points, told))
    ends = np.asarray(points) == 3
    first = np.where(ends.any(1), ends.argmax(1), 6)
    stays = np.array([row[n:].all() for row, n in zip(ends, first, strict=True)])
    last = max(2 * (over - 1), 0)
    np.testing.assert_array_equal(p > 0, stays & (last <= first) & (first <= 2 * over))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-5)
    possible = points[np.resize(np.flatnonzero(p > 0), len(points))]  # each of them, again and again
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params, possible, told)))


@TOLD
def test_ends_when_decoded_are_those_of_the_full_pass(conditional):
    """Position by position, the infinite numbers of certain and impossible ends included; and of sounds that are drawn.

    Of these the conditionals of the decoding loop, in which there are only ends after an end, add up to `log_prob`.
    """
    sound, two = spoken(conditional, 12), over_at(4, 6, 2)
    x = jax.random.randint(KEY, (2, 12), 0, 3)
    params = parameters(sound, x, two)
    assert_cached_equals_full(sound, params, x, two)
    full = jax.jit(lambda: causal.outputs(sound, params, x, two))()
    model, told = autoregressive(sound, (12,), conditional, end=3), over_at(4, 6, 200)
    drawn = np.asarray(jax.jit(model.sample, static_argnums=2)(params, KEY, 200, told))
    first = (drawn == 3).argmax(1)
    assert (np.isinf(full).any(-1) == (np.arange(12) // 2 != 3)).all()
    assert ((drawn == 3).any(1) & (first >= 6) & (first <= 8)).all()

    @jax.jit
    def by_position(x):
        step = stepwise(sound, params, end=3, ending=conditional.ending)
        return conditional.log_prob(x, decode.conditionals(step, causal.start(sound, params, x[:, 0], told), x)).sum(1)

    expected = jax.jit(model.log_prob)(params, drawn, told)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(by_position(drawn), expected, rtol=0, atol=1e-4)


def test_mu_law_is_that_of_the_paper():
    """Against the formula in numpy, and there and back within half a level."""
    sound = np.linspace(-1, 1, 101)
    companded = np.sign(sound) * np.log(1 + 255 * np.abs(sound)) / np.log(256)
    levels = np.asarray(mu_law(jnp.asarray(sound, jnp.float32)))
    np.testing.assert_array_less(np.abs(levels - (companded + 1) / 2 * 255), 0.501)
    back = np.asarray(mu_law_inverse(jnp.arange(256)))
    np.testing.assert_array_equal(mu_law(jnp.asarray(back)), np.arange(256))
    np.testing.assert_allclose(back[[0, 255]], [-1, 1], atol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="sizes and dilations of a WaveNet must be at least 1"):
        WaveNet(8, 4, 4, dilations=(1, 0))
    with pytest.raises(ValueError, match=r"companding must be at least 0, got -1\.0"):
        net(8, 4, 4, companding=-1.0)
    sound = net(8, 4, 4, num_classes=(3, 2))
    with pytest.raises(ValueError, match=r"needs as many labels, got shape \(1,\)"):
        sound.context(jnp.zeros(1, jnp.int32))
    with pytest.raises(ValueError, match=r"frames that divide the length 8, of 2 channels, got .* \(1, 3, 2\)"):
        net(8, 4, 4, num_local=2).context((None, jnp.zeros((1, 3, 2))))
    with pytest.raises(ValueError, match=r"an ending needs a slower sequence that tells it, got num_local=0"):
        net(8, 4, 4, ending=categorical_ending)
