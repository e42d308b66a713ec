"""The benchmark of cached decoding: the loop it is measured against draws the same, and every network has its case."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import decode
from benchmarks.decode import CASES
from benchmarks.measure import Measured
from experiments.errors import UserError
from jaxgen.distributions import categorical_conditional, logistic_mixture
from jaxgen.models.autoregressive.autoregressive import autoregressive
from jaxgen.nets import causal
from jaxgen.nets.pixel_cnn_plus import PixelCNNPlus
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.transformer_blocks import MODERN
from jaxgen.nets.translator import Translator

COLOURS = logistic_mixture(8, 2, num_channels=2)
SMALL = {
    "tokens": decode.Case(
        lambda shape: Transformer(5, shape, 8, 1, 2), (3,), (6,), categorical_conditional(5), num_naive=2
    ),
    "pixels": decode.Case(
        lambda shape: PixelCNNPlus(shape, 8, COLOURS.num_outputs, 4, 1, 2), (2, 2, 2), (4, 2, 2), COLOURS, num_naive=2
    ),
    "translations": decode.Case(
        lambda shape: Translator(5, 5, 4, shape[0], width=8, depth=1, num_heads=2, style=MODERN),
        (3,),
        (6,),
        categorical_conditional(5),
        num_naive=2,
        source_length=4,
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_naive_resampling_draws_what_the_cached_loop_draws(name):
    """Both have a key of each position, so that they do the same work."""
    case, num = SMALL[name], 3
    net, key = case.net(case.whole), jax.random.key(0)
    cond = jnp.ones((num, case.source_length), jnp.int32) if case.source_length else None
    params = jax.jit(lambda: causal.init(net, key, jnp.zeros((num, *case.whole), jnp.int32), cond))()
    params = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(key, leaf.shape), params)
    model = autoregressive(net, case.whole, case.conditional)
    cached = jax.jit(lambda params: model.sample(params, key, num, cond))(params)
    axes = len(case.whole) - case.conditional.event_ndim
    length, element = math.prod(case.whole[:axes]), case.whole[axes:]
    start = jnp.zeros((num, length, *element), jnp.int32)
    slow = jax.jit(decode.naive(net, case.whole, case.conditional, length))(params, key, start, cond)
    np.testing.assert_array_equal(slow.reshape(cached.shape), cached)
    assert len(np.unique(cached)) > 1


@pytest.mark.parametrize("name", CASES)
def test_half_of_a_case_is_half_of_its_positions_and_can_be_drawn(name):
    """Shapes only: nothing is computed."""
    case = CASES[name]
    assert 2 * math.prod(case.half) == math.prod(case.whole)
    cond = jnp.ones((1, case.source_length), jnp.int32) if case.source_length else None

    def draw(key):
        net = case.net(case.half)
        params = causal.init(net, key, jnp.zeros((1, *case.half), jnp.int32), cond)
        return autoregressive(net, case.half, case.conditional).sample(params, key, 1, cond)

    assert jax.eval_shape(draw, jax.random.key(0)).shape == (1, *case.half)


def test_every_causal_network_has_a_case():
    """But the one of flows, whose elements are reals."""
    networks = {each for each in causal.Causal.__subclasses__() if each.__module__.startswith("jaxgen.nets.")}
    measured = {type(case.net(case.whole)) for case in CASES.values()}
    assert {each.__name__ for each in networks - measured} == {"MaskedMLP"}


def test_ratios_are_those_of_a_clock(monkeypatch):
    """Half a draw takes 1 s, a draw 2 s, and a naive position 3 s, of which there are 6."""
    took = {"half": 1.0, "whole": 2.0, "naive": 6.0}
    rates = lambda calls, **options: {name: Measured(0.0, [1 / took[name]], 0, None) for name in calls}  # noqa: E731
    monkeypatch.setattr(decode, "compare", rates)
    found = decode.measure(SMALL["tokens"], num=1, repeats=1, seconds=0.1)
    assert (found["positions"], found["whole_over_half"]) == (6, 2.0)
    assert (found["naive_seconds"], found["naive_over_cached"]) == pytest.approx((18.0, 9.0))
    assert found["cached_milliseconds_per_position"] == pytest.approx(2000 / 6)


def test_the_command_prints_a_line_of_json_for_each_case(monkeypatch, capsys):
    monkeypatch.setattr(decode, "CASES", SMALL)
    assert decode.run(["tokens", "translations", "--repeats", "1", "--seconds", "0.001", "--num", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["case"], row["num"]) for row in rows] == [("tokens", 2), ("translations", 2)]
    assert min(row[name] for row in rows for name in ("cached_seconds", "naive_seconds", "whole_over_half")) > 0


@pytest.mark.parametrize(
    ("args", "message"),
    [(["no_such_case"], "got 'no_such_case'"), (["made", "--seconds", "0"], "--seconds must be above 0, got 0.0")],
)
def test_bad_flags_are_named(args, message):
    with pytest.raises(UserError, match=message):
        decode.run(args)
