"""The U-Net: published size, odd sizes, classes, types, an exact start."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal, stats

from jaxgen.nets import pure
from jaxgen.nets.blocks import ADM, DDPM, DDPM_PLUS, NCSN_PLUS, AttentionBlock, blur, resize
from jaxgen.nets.time import TimeMLP, fourier_features, time_features
from jaxgen.nets.unet import UNet

KEY = jax.random.key(0)
SMALL = UNet(8, (1, 2), num_classes=3, attention_at=(1,))
COUNTS = {"Conv": 3, "Dense": 2, "Embed": 1, "GroupNorm": 1, "ResidualBlock": 8, "AttentionBlock": 4}
PINNED = [-0.13548261, 0.27068937, 0.21343993, 0.31870383, 0.20684788]


def random_params(net, *inputs):
    """Noise in every parameter, so that no output is zero; compiles nothing."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: pure.init(net, KEY, *inputs))
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


SIZES = {
    "ddpm": (UNet(128, (1, 2, 2, 2), 2, (1,)), 32, 35_746_307),
    "ddpm++": (UNet(128, (1, 2, 2, 2), 4, (1,), style=DDPM_PLUS), 32, 61_804_419),
    "ddpm++ of EDM": (UNet(128, (2, 2, 2), 4, (1,), style=DDPM_PLUS), 32, 55_732_739),
    "ncsn++": (UNet(128, (1, 2, 2, 2), 4, (1,), style=NCSN_PLUS), 32, 62_758_787),
    "ncsn++ of EDM": (UNet(128, (2, 2, 2), 4, (1,), style=NCSN_PLUS), 32, 56_395_523),
    "adm 64": (UNet(192, (1, 2, 3, 4), 3, (1, 2, 3), 1000, style=ADM), 64, 295_899_267),
    "adm 256": (UNet(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 1000, 6, style=ADM), 256, 553_838_086),
}


@pytest.mark.parametrize(("net", "side", "published"), SIZES.values(), ids=SIZES.keys())
def test_size_equals_the_published_one(net, side, published):
    """DDPM: its public checkpoint. DDPM++, NCSN++, ADM 64: counted in EDM's code, its labels of augmentations left out.

    ADM 256: 553.8 million in the paper.
    """
    x, t, cond = jnp.zeros((1, side, side, 3)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    params = jax.eval_shape(lambda: pure.init(net, KEY, x, t, cond))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == published


@pytest.mark.parametrize("style", [DDPM, ADM, NCSN_PLUS], ids=["ddpm", "adm", "ncsn++"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 5, 3)])
def test_shapes(style, shape):
    x, t, cond = jnp.zeros((2, *shape)), jnp.zeros(2), jnp.zeros(2, jnp.int32)
    net = UNet(8, (1, 2, 2), style=style)
    chex.assert_shape(jax.eval_shape(lambda: net.init_with_output(KEY, x, t, cond)[0]), (2, *shape))


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(KEY, (2, 6, 6, 1)), jnp.array([0.1, 2.0]), jnp.array([0, 2])


@pytest.fixture(scope="module")
def apply():
    return jax.jit(lambda params, *inputs: pure.apply(SMALL, params, *inputs))


def test_starts_at_zero(inputs):
    last = jax.jit(lambda: pure.init(SMALL, KEY, *inputs)["out"])()
    chex.assert_trees_all_equal(last, jax.tree.map(jnp.zeros_like, last))


@pytest.mark.parametrize("style", [DDPM, ADM, NCSN_PLUS], ids=["ddpm", "adm", "ncsn++"])
def test_branches_start_at_zero(inputs, style):
    """Zeros are the kernels of every block's second convolution, of every attention's output, of the last, and no more.

    Their biases are zeros, too, as all are: at the start a block passes on what is carried around it.
    """
    params = jax.jit(lambda: pure.init(SMALL.clone(style=style), KEY, *inputs))()
    last = {"ResidualBlock": "Conv_1", "AttentionBlock": "Dense_1"}
    expected = {f"{name}/{last[name.split('_')[0]]}" for name in params if "Block" in name} | {"out"}
    found = set()
    for path, leaf in jax.tree.leaves_with_path(params):
        *module, kind = (key.key for key in path)
        if kind == "bias":
            chex.assert_trees_all_equal(leaf, jnp.zeros_like(leaf))
        elif not leaf.any():
            found.add("/".join(module))
    assert found == expected
    assert sum("AttentionBlock" in name for name in found) >= 3


def test_output_depends_on_everything(inputs, apply):
    """On x, noise level and class, each example on its own."""
    (x, t, cond), params = inputs, random_params(SMALL, *inputs)
    out = apply(params, x, t, cond)
    for other in [(x.at[1, 0, 0].add(1), t, cond), (x, t.at[1].add(0.5), cond), (x, t, cond.at[1].set(1))]:
        changed = abs(apply(params, *other) - out).max((1, 2, 3))
        assert changed[0] < 1e-5 < 1e-3 < changed[1]


def test_bfloat16_computes_with_float32_parameters(inputs, apply):
    half = SMALL.clone(dtype=jnp.bfloat16)
    params = random_params(half, *inputs)
    chex.assert_trees_all_equal_dtypes(params, jax.tree.map(jnp.float32, params))
    ours, exact = jax.jit(lambda: pure.apply(half, params, *inputs))(), apply(params, *inputs)
    assert ours.dtype == jnp.float32
    assert 0 < abs(ours - exact).max() < 0.05 * abs(exact).max()


def test_outputs_of_trained_networks_stay(inputs, apply):
    """Checkpoints of the default style exist: the tree of parameters and what it computes are pinned."""
    params = random_params(SMALL, *inputs)
    names = [f"{name}_{i}" for name, num in COUNTS.items() for i in range(num)]
    assert sorted(params) == sorted([*names, "out"])
    np.testing.assert_allclose(apply(params, *inputs).ravel()[::17], PINNED, rtol=1e-4, atol=1e-6)


def test_remat_changes_no_number(inputs):
    """Same parameters, output and gradients; fewer numbers are kept for the backward pass."""
    net = UNet(8, (), num_classes=3, style=ADM)
    params, kept = random_params(net, *inputs), []

    def run(net):
        f = lambda params: (pure.apply(net, params, *inputs) ** 2).sum()  # noqa: E731
        residuals = jax.eval_shape(lambda params: jax.vjp(f, params)[1], params)
        kept.append(sum(leaf.size for leaf in jax.tree.leaves(residuals)))
        return jax.jit(jax.value_and_grad(f))(params)

    chex.assert_trees_all_close(run(net), run(net.clone(remat=True)), rtol=1e-4, atol=1e-4)
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("side", [8, 7])
def test_smooth_resizing_is_the_filter_of_ncsn(side):
    """Correlation by scipy with (1, 3, 3, 1) along both sides, zeros beyond the border; doubling is its transpose."""
    taps, x = np.array([1, 3, 3, 1]) / 8, jax.random.normal(KEY, (1, side, side, 1))
    window, image = np.outer(taps, taps), np.asarray(x)[0, :, :, 0]
    half = signal.correlate2d(np.pad(image, [(1, 1 + side % 2)] * 2), window, mode="valid")[::2, ::2]
    np.testing.assert_allclose(resize(x, (4, 4), smooth=True)[0, :, :, 0], half, rtol=1e-5, atol=1e-6)
    spread = np.zeros((2 * side, 2 * side))
    spread[::2, ::2] = image
    double = 4 * signal.convolve2d(spread, window)[1 : 2 * side, 1 : 2 * side]
    np.testing.assert_allclose(
        resize(x, (2 * side - 1, 2 * side - 1), smooth=True)[0, :, :, 0], double, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(blur(x)[0, :, :, 0], signal.convolve2d(image, window)[1:10, 1:10], rtol=1e-5, atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="positive multiple of 4, got 6"):
        UNet(6)
    with pytest.raises(ValueError, match=r"levels 0 to 1, got \(2,\)"):
        UNet(8, (1, 2), attention_at=(2,))


def test_attention_equals_its_formula():
    """softmax(q k^T / sqrt(width)) v, written out for two heads."""
    x, net = jax.random.normal(KEY, (1, 2, 3, 8)), AttentionBlock(DDPM._replace(head_width=4))
    params = random_params(net, x)
    rows = np.asarray(x, np.float64).reshape(6, 2, 4)
    scale = np.sqrt(rows.var((0, 2)) + 1e-6)[:, None]
    norm = ((rows - rows.mean((0, 2))[:, None]) / scale).reshape(6, 8)
    norm = norm * params["GroupNorm_0"]["scale"] + params["GroupNorm_0"]["bias"]
    heads = np.split((norm @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]).reshape(6, 6, 4), 3, axis=1)
    logits = np.einsum("ihd,jhd->hij", heads[0], heads[1]) / 2
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mixed = np.einsum("hij,jhd->ihd", weights, heads[2]).reshape(6, 8)
    expected = mixed @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    found = jax.jit(lambda: pure.apply(net, params, x) - x)().reshape(6, 8)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_missing_label_is_an_error():
    with pytest.raises(ValueError, match="3 classes"):
        jax.eval_shape(lambda: pure.init(SMALL, KEY, jnp.zeros((1, 6, 6, 1)), jnp.zeros(1), None))


def test_fourier_features_have_the_distribution_of_draws():
    """Frequencies, read off at a small time, against the half-normal law, whose sign does not matter."""
    sines = fourier_features(jnp.array([1e-4]), 2000, scale=16.0)[0, 1000:]
    frequencies = np.arcsin(np.asarray(sines)) / (2 * np.pi * 1e-4)
    assert stats.kstest(frequencies, stats.halfnorm(scale=16).cdf).statistic < 0.01


def test_time_features_are_cosines_and_sines():
    found = time_features(jnp.array([0.0, 2.0]), 4, slowest=0.5, fastest=3.0)
    expected = [[1, 1, 0, 0], [np.cos(1), np.cos(6), np.sin(1), np.sin(6)]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_time_mlp_depends_on_everything():
    x, t, cond, net = jax.random.normal(KEY, (2, 3)), jnp.array([0.1, 2.0]), jnp.array([0, 2]), TimeMLP((8,), 3)
    params = random_params(net, x, t, cond)
    apply = jax.jit(lambda *args: pure.apply(net, params, *args))
    out = apply(x, t, cond)
    chex.assert_shape(out, (2, 3))
    for other in [(x.at[1].add(1), t, cond), (x, t.at[1].add(0.5), cond), (x, t, cond.at[1].set(1))]:
        changed = abs(apply(*other) - out).max(1)
        assert changed[0] < 1e-6 < 1e-3 < changed[1]


@pytest.mark.parametrize("net", [TimeMLP((8,), num_time_features=4), UNet(8, ())], ids=["mlp", "unet"])
def test_several_noise_levels(net):
    """Features of the columns one after another; one column is one level, and each of two is noticed on its own."""
    x, t = jax.random.normal(KEY, (2, 3) if isinstance(net, TimeMLP) else (2, 2, 2, 1)), jnp.array([[0.1, 1], [2, 3]])
    features = time_features(t, 4)
    np.testing.assert_array_equal(features, jnp.concatenate([time_features(t[:, i], 4) for i in (0, 1)], 1))
    shapes = [jax.eval_shape(lambda t=t: pure.init(net, KEY, x, t)) for t in (t[:, 0], t[:, :1])]
    chex.assert_trees_all_equal(*shapes)
    params = random_params(net, x, t)
    apply = jax.jit(lambda t: pure.apply(net, params, x, t))
    for column in (0, 1):
        changed = abs(apply(t.at[1, column].add(1)) - apply(t)).reshape(2, -1).max(1)
        assert changed[0] < 1e-6 < 1e-3 < changed[1]
