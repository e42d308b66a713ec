"""The encoder-decoder against autodiff, enumeration and its own full pass; beam search against exhaustive search."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.distributions import categorical_conditional
from jaxgen.models.autoregressive.autoregressive import autoregressive, complete, search
from jaxgen.nets import causal
from jaxgen.nets.transformer_blocks import GPT2, MODERN
from jaxgen.nets.translator import Translator
from jaxgen.samplers.beam import beam_search
from jaxgen.samplers.decode import greedy
from tests.models.sequences import (
    KEY,
    assert_cached_equals_full,
    assert_strictly_triangular,
    assert_sums_to_one,
    every,
    parameters,
)

SOURCE = jnp.array([[3, 1, 2, 0], [4, 4, 0, 0]])
END = 0
styles = pytest.mark.parametrize("style", [GPT2, MODERN], ids=["gpt2", "modern"])


def net(style=MODERN, length=4):
    return Translator(5, 3, 4, length, width=8, depth=2, num_heads=2, style=style)


@styles
def test_cached_equals_full(style):
    x = jax.random.randint(KEY, (2, 4), 0, 3)
    ours = net(style)
    assert_cached_equals_full(ours, parameters(ours, x, SOURCE), x, SOURCE)


@styles
def test_the_source_matters_and_its_padding_does_not(style):
    """Another length of padding gives the same outputs; every token that is there, by autodiff, gives others."""
    ours, x = net(style), jnp.array([[1, 2, 1, 0]])
    params = parameters(ours, x, SOURCE[1:])
    outputs = jax.jit(lambda source: causal.outputs(ours, params, x, source))
    np.testing.assert_allclose(outputs(jnp.array([[4, 4]])), outputs(jnp.array([[4, 4, 0, 0]])), atol=1e-5)
    assert np.abs(outputs(jnp.array([[4, 3, 0, 0]])) - outputs(jnp.array([[4, 4, 0, 0]]))).min(-1).max() > 1e-3


@styles
def test_causal_by_autodiff(style):
    """The Jacobian of the last features by the vectors of the tokens before is strictly triangular, and full below."""
    positions, ours = jnp.arange(4)[None], net(style).clone(num_tokens=4)
    params = parameters(ours, positions, SOURCE[:1])

    def features(table):
        moved = params | {"tokens": {"embedding": table}}
        last = lambda module, method: module.name == "norm"  # noqa: E731
        call = lambda module: module(positions, module.context(SOURCE[:1]))  # noqa: E731
        _, kept = ours.apply({"params": moved}, method=call, capture_intermediates=last)
        return kept["intermediates"]["norm"]["__call__"][0][0]

    jacobian = jax.jit(jax.jacobian(features))(params["tokens"]["embedding"])
    assert_strictly_triangular(np.abs(np.asarray(jacobian)).sum((1, 3)))


@functools.cache
def ended(style):
    """A model of texts of at most four tokens, and its proper texts: after an end there are only ends."""
    points = every(3, 4)
    proper = np.array([all(b == END for a, b in zip(x, x[1:], strict=False) if a == END) for x in points.tolist()])
    ours = net(style)
    model = autoregressive(ours, (4,), categorical_conditional(3), end=END)
    return ours, model, parameters(ours, points[:1], SOURCE[:1]), np.asarray(points)[proper]


@styles
def test_probabilities_sum_to_one(style):
    _, model, params, points = ended(style)
    assert_sums_to_one(model, params, points, jnp.tile(SOURCE[:1], (len(points), 1)))


def found(ours, params, num_beams, **options):
    searched = search(ours, 4, num_beams=num_beams, end=END, **options)
    return map(np.asarray, jax.jit(lambda params: searched(params, 2, SOURCE))(params))


@styles
@pytest.mark.parametrize("length_power", [0.0, 1.0])
def test_wide_beams_are_exhaustive(length_power, style):
    """With a beam for every text: all of them in the order of their probabilities by `log_prob`, of both sources."""
    ours, model, params, points = ended(style)
    x, log_prob = found(ours, params, 81, length_power=length_power)
    exact = jax.jit(model.log_prob)
    for i in range(2):
        expected = np.asarray(exact(params, jnp.asarray(points), jnp.tile(SOURCE[i], (len(points), 1))))
        length = np.minimum((points != END).sum(1) + 1, 4)
        order = np.argsort(-expected / length**length_power)
        np.testing.assert_allclose(log_prob[i, : len(points)], expected[order], atol=1e-4)
        assert np.all(log_prob[i, len(points) :] == -np.inf)
        np.testing.assert_array_equal(x[i, :3], points[order][:3])


@styles
def test_one_beam_is_greedy(style):
    ours, _, params, _ = ended(style)
    x, _ = found(ours, params, 1)
    finish = complete(ours, (4,), categorical_conditional(3, choose=greedy), end=END)
    np.testing.assert_array_equal(x[:, 0], jax.jit(finish)(params, KEY, jnp.zeros((2, 0), jnp.int32), SOURCE))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"a source \[n, s\] of at most 4 tokens, got shape \(1, 5\)"):
        causal.init(net(), KEY, jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 5), jnp.int32))
    with pytest.raises(ValueError, match=r"of at most 4 tokens, got shape None"):
        causal.init(net(), KEY, jnp.zeros((1, 4), jnp.int32), None)
    with pytest.raises(ValueError, match="the source knows the levels 0 to 4, got 5"):
        causal.init(net(), KEY, jnp.zeros((1, 4), jnp.int32), jnp.array([[1, 5]]))
    with pytest.raises(ValueError, match="source 1 of 2 is empty: nothing but padding"):
        causal.init(net(), KEY, jnp.zeros((2, 4), jnp.int32), jnp.array([[1, 0], [0, 0]]))
    with pytest.raises(ValueError, match="a context of 4 positions cannot hold a prompt of 5"):
        complete(net(), (4,), categorical_conditional(3), end=END)({}, KEY, jnp.ones((1, 5), jnp.int32), SOURCE[:1])
    with pytest.raises(ValueError, match="num_beams and length of at least 1 and length_power of at least 0, got 0, 4"):
        beam_search(lambda *args: args, (), num=1, length=4, num_beams=0)
