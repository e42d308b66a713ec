import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jaxgen.nets.conv import ConvDecoder, ConvEncoder, depth_to_space

SHAPES = [(28, 28, 1), (8, 8, 1), (32, 32, 3), (4, 12, 2)]


def init(net, x, cond=None):
    return jax.jit(net.init)(jax.random.key(0), x, cond)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_without_computing(shape):
    def both(z, cond):
        x = ConvDecoder(shape, num_classes=3, num_groups=8).init_with_output(jax.random.key(0), z, cond)[0]
        return x, *ConvEncoder(out_dim=5, num_classes=3, num_groups=8).init_with_output(jax.random.key(0), x, cond)

    x, y, variables = jax.eval_shape(both, jnp.ones((2, 7)), jnp.array([0, 2]))
    assert x.shape == (2, *shape)
    assert y.shape == (2, 5)
    assert list(variables) == ["params"]


def test_depth_to_space_by_its_formula():
    n, h, w, b, f = 2, 3, 2, 3, 2
    x = np.arange(n * h * w * b * b * f).reshape(n, h, w, b * b * f)
    y = np.zeros((n, b * h, b * w, f), int)
    for m, i, j, p, q, k in np.ndindex(n, h, w, b, b, f):
        y[m, b * i + p, b * j + q, k] = x[m, i, j, (b * p + q) * f + k]
    np.testing.assert_array_equal(depth_to_space(jnp.asarray(x), b), y)


def test_a_doubling_is_a_transposed_convolution():
    """Oracle: XLA's dilated convolution with the 6 x 6 kernel whose taps are the four 3 x 3 kernels, interleaved."""
    x = jax.random.normal(jax.random.key(1), (2, 5, 4, 3))
    kernels = jax.random.normal(jax.random.key(2), (3, 3, 3, 2, 2, 7))
    dimensions = ("NHWC", "HWIO", "NHWC")
    flat = jax.lax.conv_general_dilated(x, kernels.reshape(3, 3, 3, 28), (1, 1), "SAME", dimension_numbers=dimensions)
    large = np.zeros((6, 6, 3, 7))
    for a, b, p, q in np.ndindex(3, 3, 2, 2):
        large[2 * a + 1 - p, 2 * b + 1 - q] = kernels[a, b, :, p, q]
    transposed = jax.lax.conv_general_dilated(
        x, jnp.asarray(large, jnp.float32), (1, 1), ((3, 3), (3, 3)), lhs_dilation=(2, 2), dimension_numbers=dimensions
    )
    np.testing.assert_allclose(depth_to_space(flat), transposed, rtol=1e-4, atol=1e-4)


def test_encoder_against_scipy():
    """Oracle: correlation of scipy, every second pixel, a label's shift, leaky rectifier, matrix product."""
    x, cond = jax.random.normal(jax.random.key(1), (2, 6, 4, 2)), jnp.array([2, 0])
    net = ConvEncoder((3,), 5, num_classes=4)
    variables = init(net, x, cond)
    params = jax.tree.map(np.asarray, variables["params"])
    kernel, shift = params["Conv_0"]["kernel"], params["Dense_0"]["kernel"]
    hidden = np.zeros((2, 3, 2, 3))
    for n, i, o in np.ndindex(2, 2, 3):
        padded = np.pad(x[n, :, :, i], 1)
        hidden[n, :, :, o] += signal.correlate2d(padded, kernel[:, :, i, o], mode="valid")[::2, ::2]
    hidden += (params["Conv_0"]["bias"] + shift[np.asarray(cond)])[:, None, None]
    hidden = np.where(hidden > 0, hidden, 0.2 * hidden).reshape(2, -1)
    expected = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    np.testing.assert_allclose(jax.jit(net.apply)(variables, x, cond), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "net", [ConvEncoder((4, 8), 3, 3, num_groups=4), ConvDecoder((8, 4, 1), (8, 4), 3, num_groups=4)]
)
def test_examples_do_not_look_at_each_other_and_labels_matter(net):
    shape = (8, 4, 1) if isinstance(net, ConvEncoder) else (6,)
    x, cond = jax.random.normal(jax.random.key(1), (3, *shape)), jnp.array([0, 1, 2])

    @jax.jit
    def outputs_and_slopes(x, cond):
        """Outputs, and the largest slope of their squares along each kind of parameters."""
        variables = net.init(jax.random.key(0), x, cond)
        y, pull_back = jax.vjp(lambda variables: net.apply(variables, x, cond), variables)
        return y, jax.tree.map(lambda slope: jnp.abs(slope).max(), pull_back(2 * y)[0])

    y, slopes = outputs_and_slopes(x, cond)
    others, _ = outputs_and_slopes(x.at[1:].set(5.0), cond.at[1:].set(0))
    labels, _ = outputs_and_slopes(jnp.broadcast_to(x[:1], x.shape), cond)
    np.testing.assert_allclose(y[0], others[0], rtol=1e-5, atol=1e-6)
    assert min(jnp.abs(labels[i] - labels[j]).max() for i, j in [(0, 1), (0, 2), (1, 2)]) > 1e-3
    assert min(jax.tree.leaves(slopes)) > 0


def test_without_classes_the_label_is_ignored():
    net, x = ConvEncoder((2,), 1), jnp.ones((2, 4, 4, 1), jnp.uint8)
    variables = init(net, x)
    chex.assert_trees_all_equal(net.apply(variables, x), net.apply(variables, x.astype(jnp.float32), jnp.array([1, 2])))


def test_errors():
    with pytest.raises(ValueError, match=r"sides divisible by 4, got \(28, 30, 1\)"):
        ConvDecoder((28, 30, 1))
    with pytest.raises(ValueError, match=r"image shape \(h, w, c\) with sides divisible by 4, got \(28, 28\)"):
        ConvDecoder((28, 28))
    with pytest.raises(ValueError, match=r"sides divisible by 8, got \(28, 28, 1\)"):
        ConvEncoder((8, 8, 8)).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    with pytest.raises(ValueError, match="network of 3 classes needs a label for every example, got cond=None"):
        ConvEncoder(num_classes=3).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    with pytest.raises(ValueError, match="network of 3 classes needs a label for every example, got cond=None"):
        ConvDecoder((8, 8, 1), num_classes=3).init(jax.random.key(0), jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"num_groups must divide the channels \(12, 6\) or be 0, got 4"):
        ConvDecoder((8, 8, 1), (12, 6), num_groups=4)
    with pytest.raises(ValueError, match=r"num_groups must divide the channels \(6,\) or be 0, got 4"):
        ConvEncoder((3, 6), num_groups=4)
    with pytest.raises(ValueError, match="blocks of 2 needs channels divisible by 4, got 6"):
        depth_to_space(jnp.zeros((1, 2, 2, 6)))
