"""Transformers against autodiff, enumeration, their own full pass, and GPT-2 and Llama of the transformers library."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.distributions import categorical_conditional, logistic_mixture
from jaxgen.models.autoregressive.autoregressive import autoregressive, complete
from jaxgen.nets import causal
from jaxgen.nets.transformer import Transformer
from jaxgen.nets.transformer_blocks import GPT2, MODERN
from tests.models.sequences import (
    KEY,
    assert_cached_equals_full,
    assert_completes_upper_rows,
    assert_strictly_triangular,
    assert_sums_to_one,
    every,
    parameters,
)
from tests.nets.make_transformers_outputs import SIZES, TEXT, named

OUTPUTS = np.load(pathlib.Path(__file__).parents[1] / "nets" / "transformers_outputs.npz")
styles = pytest.mark.parametrize("style", [GPT2, MODERN], ids=["gpt2", "modern"])


def net(style, shape=(5,), **options):
    return Transformer(3, shape, width=8, depth=2, num_heads=2, style=style, **options)


def block(name, norms, inner, mlp):
    return {
        "attention_norm": norms(f"{name}.{inner[0]}"),
        "mlp_norm": norms(f"{name}.{inner[1]}"),
        "attention": inner[2](name),
        "mlp": mlp(name),
    }


def gpt2_params():
    """Their names to ours; their `Conv1D` holds kernels `[in, out]` as ours do."""
    width = SIZES["width"]
    norms = lambda name: {"scale": named(f"{name}.weight", (width,)), "bias": named(f"{name}.bias", (width,))}  # noqa: E731

    def dense(name, fan_in, fan_out):
        return {"kernel": named(f"{name}.weight", (fan_in, fan_out)), "bias": named(f"{name}.bias", (fan_out,))}

    attention = lambda name: {  # noqa: E731
        "in": dense(f"{name}.attn.c_attn", width, 3 * width),
        "out": dense(f"{name}.attn.c_proj", width, width),
    }
    mlp = lambda name: {  # noqa: E731
        "in": dense(f"{name}.mlp.c_fc", width, 4 * width),
        "out": dense(f"{name}.mlp.c_proj", 4 * width, width),
    }
    blocks = {f"block_{i}": block(f"h.{i}", norms, ("ln_1", "ln_2", attention), mlp) for i in range(SIZES["depth"])}
    positions = named("wpe.weight", (SIZES["length"], width))
    return blocks | {"norm": norms("ln_f"), "positions_0": positions}, named("wte.weight", (SIZES["tokens"], width))


def llama_params():
    """Their names to ours; their dense layers hold kernels `[out, in]`, and what is one layer here are two or three."""
    width, hidden = SIZES["width"], SIZES["hidden"]
    norms = lambda name: {"scale": named(f"{name}.weight", (width,))}  # noqa: E731

    def dense(names, fan_in, fan_out):
        return {"kernel": np.concatenate([named(f"{name}.weight", (fan_out, fan_in)).T for name in names], 1)}

    attention = lambda name: {  # noqa: E731
        "in": dense([f"{name}.self_attn.{part}_proj" for part in "qkv"], width, width),
        "out": dense([f"{name}.self_attn.o_proj"], width, width),
    }
    mlp = lambda name: {  # noqa: E731
        "in": dense([f"{name}.mlp.{part}_proj" for part in ("gate", "up")], width, hidden),
        "out": dense([f"{name}.mlp.down_proj"], hidden, width),
    }
    inner = ("input_layernorm", "post_attention_layernorm", attention)
    blocks = {f"block_{i}": block(f"layers.{i}", norms, inner, mlp) for i in range(SIZES["depth"])}
    return blocks | {"norm": norms("norm")}, named("embed_tokens.weight", (SIZES["tokens"], width))


@pytest.mark.parametrize(
    ("style", "translate", "peer"),
    [(GPT2, gpt2_params, "gpt2"), (MODERN, llama_params, "llama")],
    ids=["gpt2", "llama"],
)
def test_peers(style, translate, peer):
    """Logits of random-weight GPT-2 and Llama, to 1e-4; the start vector stands for the first token."""
    params, table = translate()
    first, length = TEXT[:, 0], SIZES["length"]
    ours = Transformer(
        SIZES["tokens"],
        (length,),
        width=SIZES["width"],
        depth=SIZES["depth"],
        num_heads=SIZES["heads"],
        num_classes=2,
        style=style,
        hidden=SIZES["hidden"] if peer == "llama" else None,
    )
    params |= {"tokens": {"embedding": table}, "start": {"embedding": table[first]}}
    rest = jnp.asarray(np.concatenate([TEXT[:, 1:], np.zeros((2, 1), int)], 1))
    logits = jax.jit(lambda params: causal.outputs(ours, params, rest, jnp.arange(2)))(params)
    assert OUTPUTS[peer].std() > 0.1
    np.testing.assert_allclose(logits, OUTPUTS[peer], rtol=0, atol=1e-4)


@styles
def test_cached_equals_full(style):
    x, cond = jax.random.randint(KEY, (3, 5), 0, 3), jnp.arange(3)
    text = net(style, num_classes=3)
    assert_cached_equals_full(text, parameters(text, x, cond), x, cond)


@styles
def test_cached_equals_full_of_images(style):
    x = jax.random.randint(KEY, (2, 2, 3, 2), 0, 3)
    image = net(style, (2, 3, 2))
    assert_cached_equals_full(image, parameters(image, x), x)


@styles
@pytest.mark.parametrize("shape", [(5,), (2, 3, 2)], ids=["text", "image"])
def test_causal_by_autodiff(style, shape):
    """The Jacobian of the last features by the vectors of the tokens before is strictly triangular, and full below.

    Of an image the order is that of rows, columns and channels.
    """
    num = math.prod(shape)  # each position has a token of its own
    positions, text = jnp.arange(num).reshape(shape), net(style, shape).clone(num_tokens=num)
    params = parameters(text, positions[None])

    def features(table):
        moved = params | {"tokens": {"embedding": table}}
        last = lambda module, method: module.name == "norm"  # noqa: E731
        _, kept = text.apply({"params": moved}, positions[None], capture_intermediates=last)
        return kept["intermediates"]["norm"]["__call__"][0][0]

    jacobian = jax.jit(jax.jacobian(features))(params["tokens"]["embedding"])
    assert_strictly_triangular(np.abs(np.asarray(jacobian)).sum((1, 3)))


@styles
@pytest.mark.parametrize("shape", [(5,), (2, 2, 1)], ids=["strings", "images"])
def test_probabilities_sum_to_one(style, shape):
    """Over all strings of five tokens of three levels, and all 2x2 images of four."""
    num_levels = 3 if len(shape) == 1 else 4
    ours = net(style, shape).clone(num_tokens=num_levels)
    points = every(num_levels, np.prod(shape)).reshape(-1, *shape)
    model = autoregressive(ours, shape, categorical_conditional(num_levels))
    assert_sums_to_one(model, parameters(ours, points[:1]), points)


def test_probabilities_of_texts_that_end():
    """Over the strings of up to four tokens, with and without an end: what follows an end is not counted twice."""
    ours, points = net(GPT2, (4,)), every(3, 4)
    model = autoregressive(ours, (4,), categorical_conditional(3), end=0)
    params = parameters(ours, points[:1])
    proper = np.array([all(b == 0 for a, b in zip(x, x[1:], strict=False) if a == 0) for x in points.tolist()])
    assert_sums_to_one(model, params, points[proper])
    assert np.all(np.asarray(jax.jit(model.log_prob)(params, points[~proper])) == -np.inf)
    x = np.asarray(jax.jit(lambda key: model.sample(params, key, 200))(KEY))
    assert 0.1 < (x == 0).any(1).mean()
    assert np.all((x[:, 1:] == 0) | (x[:, :-1] != 0))
    gradient = jax.jit(jax.grad(lambda p: model.log_prob(p, points[proper]).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_samples_have_the_probabilities_of_the_model():
    """A chi-squared test of 20000 strings against `log_prob`, and the prompt of a completion is kept."""
    ours, points = net(MODERN, (3,)), every(3, 3)
    model, params = autoregressive(ours, (3,), categorical_conditional(3)), parameters(ours, points[:1])
    expected = np.exp(np.asarray(jax.jit(model.log_prob)(params, points), np.float64))
    x = np.asarray(jax.jit(lambda key: model.sample(params, key, 20_000))(KEY))
    assert x.dtype == np.uint8
    code = lambda x: x[:, 0].astype(int) * 9 + x[:, 1] * 3 + x[:, 2]  # noqa: E731
    assert stats.chisquare(np.bincount(code(x), minlength=27), 20_000 * expected / expected.sum()).pvalue > 1e-3
    finish = jax.jit(complete(ours, (3,), categorical_conditional(3)))
    x = np.asarray(finish(params, KEY, jnp.tile(jnp.array([[2, 1]]), (20_000, 1))))
    assert np.all(x[:, :2] == [2, 1])
    share = expected[21:24] / expected[21:24].sum()
    assert stats.chisquare(np.bincount(x[:, 2], minlength=3), 20_000 * share).pvalue > 1e-3


@styles
def test_a_completed_half_of_an_image_has_the_probabilities_of_the_model(style):
    """By enumeration of all lower rows of 2x2 images of three levels."""
    assert_completes_upper_rows(net(style, (2, 2, 1)), categorical_conditional(3))


def test_bad_input_is_named():
    ours = net(GPT2)
    model, params = autoregressive(ours, (5,), categorical_conditional(3)), parameters(ours, jnp.zeros((1, 5), int))
    finish = complete(ours, (5,), categorical_conditional(3))
    with pytest.raises(ValueError, match="the model knows the levels 0 to 2, got 3"):
        model.log_prob(params, jnp.array([[0, 1, 2, 3, 0]]))
    with pytest.raises(ValueError, match="the model knows the levels 0 to 2, got -1"):
        finish(params, KEY, jnp.array([[-1, 0]]))
    with pytest.raises(ValueError, match="a context of 5 positions cannot hold a prompt of 6"):
        finish(params, KEY, jnp.zeros((1, 6), jnp.int32))
    with pytest.raises(ValueError, match=r"expected examples of shape \(5,\), got \(4,\)"):
        model.log_prob(params, jnp.zeros((1, 4), jnp.int32))
    with pytest.raises(ValueError, match="expects integers, got data of type float32"):
        model.log_prob(params, jnp.zeros((1, 5)))
    with pytest.raises(ValueError, match="the end must be a level of 0 to 2, got 3"):
        autoregressive(ours, (5,), categorical_conditional(3), end=3)
    with pytest.raises(ValueError, match="this density cannot tell an end, got end=2: see `distributions.with_end`"):
        autoregressive(ours, (5,), logistic_mixture(3, 1), end=2)
    with pytest.raises(ValueError, match="this density cannot tell an end, got end=2"):
        complete(ours, (5,), logistic_mixture(3, 1), end=2)(params, KEY, jnp.zeros((1, 1), int))
    with pytest.raises(ValueError, match="width must be a multiple of 3 heads"):
        Transformer(3, (5,), width=8, num_heads=3)
    with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
        categorical_conditional(1)
    with pytest.raises(ValueError, match="a network of 2 classes needs a label"):
        causal.init(net(GPT2, num_classes=2), KEY, jnp.zeros((1, 5), jnp.int32), None)


@styles
def test_in_bfloat16_parameters_and_logits_stay_float32(style):
    exact, tokens = net(style, (12,)), jax.random.randint(KEY, (4, 12), 0, 3)
    params = parameters(exact, tokens)
    half = exact.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(lambda: causal.init(half, KEY, tokens, None))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    ours, expected = jax.jit(lambda: [causal.outputs(each, params, tokens, None) for each in (half, exact)])()
    assert ours.dtype == jnp.float32
    error = float(jnp.linalg.norm(ours - expected) / jnp.linalg.norm(expected))
    assert 1e-4 < error < 3e-2  # 8 bits of each number, and a few sums


@styles
def test_in_bfloat16_the_cached_conditionals_are_those_of_the_full_pass(style):
    """To the 8 bits of the keys and values that are kept: sums of 8 numbers are off by a percent at most."""
    half, tokens = net(style, (6,), dtype=jnp.bfloat16), jax.random.randint(KEY, (4, 6), 0, 3)
    params = parameters(half, tokens)
    full, state = jax.jit(
        lambda: (causal.outputs(half, params, tokens, None), causal.start(half, params, tokens[:, 0], None))
    )()
    step = jax.jit(functools.partial(causal.step, half, params))
    for position in range(6):
        before = tokens[:, max(position - 1, 0)]
        state, output = step(state, before, jnp.asarray(position))
        assert output.dtype == jnp.float32
        np.testing.assert_allclose(output, full[:, position], atol=0.02 * float(jnp.abs(full).max()))
