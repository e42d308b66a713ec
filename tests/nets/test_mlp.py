"""Multilayer perceptrons, also of a noise level: against NumPy, and computed in bfloat16 with float32 parameters."""

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxgen.nets import pure
from jaxgen.nets.mlp import MLP
from jaxgen.nets.time import TimeMLP, slow_features

X = jax.random.normal(jax.random.key(0), (5, 3))
LEVEL, COND = jnp.linspace(-2, 2, 5), jnp.array([0, 1, 1, 0, 1])
NETS = {
    "mlp": (MLP((32, 32), 4, num_classes=2), (X, COND)),
    "time": (TimeMLP((32, 32), num_classes=2, embed=slow_features), (X, LEVEL, COND)),
}
every_net = pytest.mark.parametrize(("net", "inputs"), NETS.values(), ids=NETS)


def parameters(net, inputs):
    """Random parameters, the last layer's too."""
    params = jax.jit(net.init)(jax.random.key(1), *inputs)["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noise = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, noise)


def by_hand(params, features, dtype):
    """Dense layers with SiLU, in NumPy: hidden layers of a type, the last in float32."""
    layers = [params[f"Dense_{i}"] for i in range(len(params))]
    h = np.asarray(features)
    for layer in layers[:-1]:
        kernel, bias = (np.asarray(layer[name]).astype(dtype) for name in ("kernel", "bias"))
        h = (h.astype(dtype).astype(np.float64) @ kernel.astype(np.float64)).astype(dtype) + bias
        h = (h.astype(np.float64) / (1 + np.exp(-h.astype(np.float64)))).astype(dtype)
    return h.astype(np.float32) @ np.asarray(layers[-1]["kernel"]) + np.asarray(layers[-1]["bias"])


@every_net
@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.01)])
def test_layers_are_those_written_by_hand(net, inputs, dtype, rtol):
    """Labels one-hot at the end, behind the features of levels."""
    params = parameters(net, inputs)
    features = jnp.concatenate([X, slow_features(LEVEL, 32)], -1) if isinstance(net, TimeMLP) else X
    features = jnp.concatenate([features, jax.nn.one_hot(COND, 2)], -1)
    ours = jax.jit(lambda: pure.apply(net.clone(dtype=dtype), params, *inputs))()
    expected = by_hand(params.get("MLP_0", params), features, {jnp.bfloat16: ml_dtypes.bfloat16}.get(dtype, dtype))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=rtol * abs(expected).max())


@every_net
def test_bfloat16_computes_with_float32_parameters(net, inputs):
    """As near to float32 as its 8 bits let it be, and not nearer: so hidden layers are computed in it."""
    half, params = net.clone(dtype=jnp.bfloat16), parameters(net, inputs)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        jax.eval_shape(half.init, jax.random.key(1), *inputs)["params"], params
    )
    ours, exact = (jax.jit(lambda net=net: pure.apply(net, params, *inputs))() for net in (half, net))
    assert ours.dtype == jnp.float32
    assert 1e-5 * abs(exact).max() < abs(ours - exact).max() < 0.02 * abs(exact).max()
    program = str(jax.make_jaxpr(lambda: pure.apply(half, params, *inputs))())
    assert program.count("bf16[5,32] = dot_general") == 2
