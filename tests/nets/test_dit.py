"""The diffusion transformer: published sizes, an exact start, patches, positions, types, depth."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets import pure
from jaxgen.nets.conv import depth_to_space
from jaxgen.nets.dit import DiT, DiTBlock, patchify, positions
from jaxgen.nets.unet import UNet

KEY = jax.random.key(0)
SMALL = DiT(2, 16, 3, 2, num_classes=3)
SIZES = {"S": (384, 12, 6, 33), "B": (768, 12, 12, 130), "L": (1024, 24, 16, 458), "XL": (1152, 28, 16, 675)}


def shapes_of(net, *inputs):
    return jax.eval_shape(lambda: pure.init(net, KEY, *inputs))


def random_params(net, *inputs):
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes_of(net, *inputs))


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(KEY, (2, 4, 6, 3)), jnp.array([0.1, 2.0]), jnp.array([0, 2])


@pytest.mark.parametrize(("width", "depth", "heads", "millions"), SIZES.values(), ids=SIZES.keys())
def test_size_equals_the_published_one(width, depth, heads, millions):
    """Table 1 of the paper; XL/2 to the last parameter, of which the 256 positions are a table that ours computes."""
    net = DiT(2, width, depth, heads, num_classes=1001, out_channels=8)
    shapes = shapes_of(net, jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), jnp.zeros(1, jnp.int32))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert round(count / 1e6) == millions
    assert width != 1152 or count + 256 * width == 675_129_632


def test_starts_at_zero_with_blocks_that_do_nothing(inputs):
    x, t, cond = inputs
    params = jax.jit(lambda: pure.init(SMALL, KEY, x, t, cond))()
    out = jax.jit(lambda params: pure.apply(SMALL, params, x, t, cond))(params)
    chex.assert_trees_all_equal(out, jnp.zeros_like(x))
    h, embedding = jax.random.normal(KEY, (2, 6, 16)), jax.random.normal(KEY, (2, 16))
    each = jax.jit(jax.vmap(lambda params: pure.apply(DiTBlock(2), params, h, embedding)[0]))(params["blocks"])
    chex.assert_trees_all_equal(each, jnp.stack([h, h, h]))
    assert jnp.abs(params["blocks"]["Dense_0"]["kernel"][0] - params["blocks"]["Dense_0"]["kernel"][1]).max() > 0.1


def test_output_depends_on_everything(inputs):
    """On x, noise level and class, each example on its own."""
    (x, t, cond), params = inputs, random_params(SMALL, *inputs)
    apply = jax.jit(lambda *inputs: pure.apply(SMALL, params, *inputs))
    out = apply(x, t, cond)
    for other in [(x.at[1, 0, 0].add(1), t, cond), (x, t.at[1].add(0.5), cond), (x, t, cond.at[1].set(1))]:
        changed = abs(apply(*other) - out).max((1, 2, 3))
        assert changed[0] < 1e-5 < 1e-3 < changed[1]


def test_the_program_does_not_grow_with_the_depth(inputs):
    """One loop over the blocks, whose weights differ (`test_peers` has two of them)."""

    def program(depth):
        net = SMALL.clone(depth=depth)
        return str(jax.make_jaxpr(lambda p: pure.apply(net, p, *inputs))(shapes_of(net, *inputs))).count("=")

    assert program(3) == program(30)


def test_permuting_tokens_permutes_the_outputs_of_a_block():
    """Attention sees a set: only the positions, added before, tell the tokens apart."""
    h, embedding = jax.random.normal(KEY, (1, 6, 16)), jax.random.normal(KEY, (1, 16))
    params, order = random_params(DiTBlock(2), h, embedding), jnp.array([3, 1, 5, 0, 2, 4])
    apply = jax.jit(lambda h: pure.apply(DiTBlock(2), params, h, embedding)[0])
    chex.assert_trees_all_close(apply(h[:, order]), apply(h)[:, order], rtol=1e-4, atol=1e-5)


def test_patches_are_the_blocks_of_the_image():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    found = patchify(jnp.asarray(x, jnp.float32), 2)
    for i, j in np.ndindex(2, 3):
        block = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(2, -1)
        np.testing.assert_array_equal(found[:, i, j], block)
    np.testing.assert_array_equal(depth_to_space(found, 2), x)


def test_positions_by_their_formula():
    """Column first, sines before cosines; no two positions are the same."""
    found = positions(2, 3, 8)
    for token, (row, column) in enumerate(np.ndindex(2, 3)):
        angles = [place * frequency for place in (column, row) for frequency in (1, 0.01)]
        expected = [np.sin(angles[:2]), np.cos(angles[:2]), np.sin(angles[2:]), np.cos(angles[2:])]
        np.testing.assert_allclose(found[token], np.concatenate(expected), atol=1e-6)
    assert len(np.unique(np.round(found, 4), axis=0)) == 6


def test_remat_changes_no_number(inputs):
    """Same output and gradients; fewer numbers are kept for the backward pass."""
    params, kept = random_params(SMALL, *inputs), []

    def run(net):
        f = lambda params: (pure.apply(net, params, *inputs) ** 2).mean()  # noqa: E731
        residuals = jax.eval_shape(lambda params: jax.vjp(f, params)[1], params)
        kept.append(sum(leaf.size for leaf in jax.tree.leaves(residuals)))
        return jax.jit(jax.value_and_grad(f))(params)

    chex.assert_trees_all_close(run(SMALL.clone(remat=True)), run(SMALL), rtol=1e-4, atol=1e-4)
    assert kept[0] < 0.5 * kept[1]


def test_bfloat16_computes_with_float32_parameters(inputs):
    half, params = SMALL.clone(dtype=jnp.bfloat16), random_params(SMALL, *inputs)
    chex.assert_trees_all_equal_dtypes(shapes_of(half, *inputs), shapes_of(SMALL, *inputs))
    ours, exact = (jax.jit(lambda net=net: pure.apply(net, params, *inputs))() for net in (half, SMALL))
    assert ours.dtype == jnp.float32
    assert 0 < abs(ours - exact).max() < 0.05 * abs(exact).max()


@pytest.mark.parametrize("net", [SMALL, UNet(16, ())], ids=["dit", "unet"])
def test_attention_is_an_argument(net, inputs):
    """A fused kernel may take the place of `jax.nn.dot_product_attention`, and is handed its shapes."""
    shapes = []

    def attention(query, key, value):
        shapes.append((query.shape, key.shape, value.shape))
        return jax.nn.dot_product_attention(query, key, value)

    params = random_params(net, *inputs)
    jax.eval_shape(lambda: pure.apply(net.clone(attention=attention), params, *inputs))
    assert set(shapes) == {((2, 6, 2, 8),) * 3 if net is SMALL else ((2, 24, 1, 16),) * 3}


def test_errors(inputs):
    with pytest.raises(ValueError, match="multiple of 4 and of 3 heads, got 16"):
        DiT(width=16, num_heads=3)
    with pytest.raises(ValueError, match=r"at least 1, got \(2, 384, 0, 6\)"):
        DiT(depth=0)
    with pytest.raises(ValueError, match="patches of 4 must divide the sides of the image, got 4 x 6"):
        shapes_of(SMALL.clone(patch=4), *inputs)
    with pytest.raises(ValueError, match="3 classes"):
        shapes_of(SMALL, *inputs[:2])
