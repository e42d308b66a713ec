"""What one cached step costs, counted and not timed: nothing more when there are more positions, but for attention.

`benchmarks.flops` counts products, XLA's own analysis of the program everything; of branches both take the dearest.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

from benchmarks import flops
from jaxgen.nets import causal
from jaxgen.nets.made import MADE
from jaxgen.nets.pixel_cnn import GatedPixelCNN, PixelCNN
from jaxgen.nets.pixel_cnn_plus import PixelCNNPlus
from jaxgen.nets.pixel_rnn import PixelRNN
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.transformer_blocks import GPT2, MODERN
from jaxgen.nets.translator import Translator
from jaxgen.nets.wavenet import WaveNet

NUM = 2
IMAGES = {
    "pixel_cnn": lambda shape: PixelCNN(shape, 3, 4, 2, 3),
    "gated_pixel_cnn": lambda shape: GatedPixelCNN(shape, 3, 4, 2, 3),
    "pixel_rnn": lambda shape: PixelRNN(shape, 3, 4, 2, 3),
    "pixel_rnn_rows": lambda shape: PixelRNN(shape, 3, 4, 2, 3, diagonal=False),
    "pixel_cnn_plus": lambda shape: PixelCNNPlus(shape, 3, 6, 4, 1, 2),
}


def step_of(net, shape, element=(), cond=None):
    """A step, and the shapes of its arguments."""
    x = jnp.zeros((NUM, *shape), jnp.int32)
    previous = jnp.zeros((NUM, *element), jnp.int32)
    params = jax.eval_shape(lambda: causal.init(net, jax.random.key(0), x, cond))
    state = jax.eval_shape(lambda params: causal.start(net, params, previous, cond), params)
    return functools.partial(causal.step, net), (params, state, previous, jnp.zeros((), jnp.int32))


def products(net, shape, **options):
    step, shapes = step_of(net, shape, **options)
    return flops.products(step, *shapes)


def operations(net, shape, **options):
    step, shapes = step_of(net, shape, **options)
    return jax.jit(step).lower(*shapes).cost_analysis()["flops"]


def of_images(name, height, width):
    """Arguments of `products`, for images of two channels."""
    shape = (height, width, 2)
    return {"net": IMAGES[name](shape), "shape": shape, "element": (2,) if name == "pixel_cnn_plus" else ()}


@pytest.mark.parametrize("name", IMAGES)
def test_a_pixel_costs_the_same_of_twice_as_many_rows(name):
    small, large = of_images(name, 4, 4), of_images(name, 8, 4)
    assert products(**small) == products(**large) > 0
    assert operations(**small) == operations(**large)


@pytest.mark.parametrize("name", IMAGES)
def test_a_pixel_costs_the_same_of_twice_as_many_columns_but_where_a_row_begins(name, monkeypatch):
    """There, what sees the rows above is computed for the whole row: a price for each of its pixels."""
    narrow, wide, wider = (products(**of_images(name, 4, width)) for width in (4, 8, 12))
    assert wide - narrow == wider - wide
    assert (wide > narrow) == (name not in ("pixel_cnn", "pixel_rnn_rows"))
    monkeypatch.setattr(flops, "max", min, raising=False)  # of branches the cheapest
    assert products(**of_images(name, 4, 4)) == products(**of_images(name, 4, 8)) <= narrow


def test_a_sample_of_wavenet_costs_the_same_of_twice_as_many():
    """Since a ring keeps as many inputs as the dilation, whatever the length."""
    cases = [{"net": WaveNet(length, 9, 6, 4, 8, (1, 2, 4, 8)), "shape": (length,)} for length in (64, 128)]
    assert products(**cases[0]) == products(**cases[1]) > 0
    assert operations(**cases[0]) == operations(**cases[1])


def test_a_number_of_made_costs_a_share_of_the_hidden_units():
    """With twice the numbers and twice the units: 2 n (inputs k + k outputs) for the k units that are new, no mask."""
    for length in (9, 17):
        num_units, num_levels = 3 * (length - 1), 5
        expected = 2 * NUM * (length * 3 + num_units * num_levels)
        assert products(MADE(num_levels, (num_units,), (length,)), (length,)) == expected


@pytest.mark.parametrize("style", [GPT2, MODERN], ids=["gpt2", "modern"])
def test_a_token_of_a_transformer_costs_more_by_the_attention_over_the_cache_alone(style):
    """q k^T and its mixture of values: 2 x 2 n width depth for each position of the cache, heads and all."""
    width, depth = 8, 3
    short, long = (products(Transformer(5, (length,), width, depth, 2, style=style), (length,)) for length in (64, 128))
    assert long - short == 4 * NUM * width * depth * 64
    assert short > 4 * NUM * width * depth * 64


def test_a_token_of_a_translation_costs_more_by_the_attention_over_both_texts_alone():
    """The encoder and the keys of the source are not computed again."""
    width, depth, cost = 8, 2, {}
    for source, length in ((16, 32), (16, 64), (32, 32)):
        net = Translator(5, 5, source, length, width=width, depth=depth, num_heads=2)
        cost[source, length] = products(net, (length,), cond=jnp.ones((NUM, source), jnp.int32))
    assert cost[16, 64] - cost[16, 32] == 4 * NUM * width * depth * 32
    assert cost[32, 32] - cost[16, 32] == 4 * NUM * width * depth * 16
