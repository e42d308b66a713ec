"""Residual and continuous flows: inverses, exact and estimated log-determinants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import bijections as b
from jaxgen.nets import spectral
from jaxgen.nets.mlp import MLP
from jaxgen.nets.time import TimeMLP, slow_features
from jaxgen.samplers import ode
from tests.bijecting import NUM_CLASSES, of_both_ways

LIMIT = 0.8
LIMITED = functools.partial(spectral.limited, limit=LIMIT)
RESIDUAL = b.residual(MLP((8,), 3, NUM_CLASSES, spectral.lip_swish), constrain=LIMITED)


def integrate(field, x, start, end):
    return ode.solve_with_divergence(field, x, jnp.linspace(start, end, 21))


CASES = {
    "residual": (b.repeat(RESIDUAL, 2), (3,)),
    "continuous": (b.continuous(TimeMLP((8,), NUM_CLASSES, 4, embed=slow_features), integrate), (3,)),
}


test_log_det_is_that_of_the_jacobian_by_autodiff, test_inverse_undoes_forward_and_its_jacobian = of_both_ways(CASES)


@pytest.fixture(scope="module")
def layer():
    """A residual layer at its limit, in six dimensions, and data."""
    net = MLP((16,), 6, 0, spectral.lip_swish)
    x = jax.random.normal(jax.random.key(1), (4, 6))
    params = jax.jit(lambda: net.init(jax.random.key(2), x)["params"])()
    params["Dense_1"]["kernel"] = params["Dense_0"]["kernel"].T  # a Jacobian with eigenvalues of one sign
    params = LIMITED(jax.tree.map(lambda leaf: 10 * leaf, params))

    def g(params, x):
        return net.apply({"params": params}, x)

    return g, params, x


def slogdet(g, params, x):
    jacobian = jax.vmap(jax.jacrev(lambda row: g(params, row[None])[0]))(x)
    return jnp.linalg.slogdet(jnp.eye(x.shape[1]) + jacobian)[1]


def test_the_roulette_is_unbiased_and_so_is_its_gradient(layer):
    """Means of 5000 estimates of log-determinant and gradients within 4.5 standard errors of slogdet's."""
    g, params, x = layer

    def value_and_gradients(log_det):
        def total(params, x):
            value = log_det(params, x)
            return value.sum(), value

        (_, value), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(params, x)
        return value, gradients[0]["Dense_1"]["kernel"], gradients[1]

    expected = jax.jit(lambda: value_and_gradients(functools.partial(slogdet, g)))()
    estimate = lambda key: lambda params, x: b.roulette_log_det(key, num_exact=2)(g, params, x)[1]  # noqa: E731
    draw = lambda key: value_and_gradients(estimate(key))  # noqa: E731
    keys = jax.random.split(jax.random.key(3), (5, 1000))
    draws = jax.jit(lambda: jax.lax.map(jax.vmap(draw), keys))()
    for exact, found in zip(expected, draws, strict=True):
        found = np.asarray(found, np.float64).reshape(5000, *exact.shape)
        error = np.abs(found.mean(0) - exact) / (found.std(0) / np.sqrt(5000))
        assert error.max() < 4.5
        assert np.abs(exact).max() > 0.02


def test_the_exact_log_det_is_that_of_the_jacobian(layer):
    g, params, x = layer
    value, log_det = jax.jit(lambda: b.exact_log_det(g, params, x))()
    np.testing.assert_allclose(value, g(params, x), rtol=1e-5)
    np.testing.assert_allclose(log_det, slogdet(g, params, x), rtol=1e-4, atol=1e-5)


def test_the_network_at_its_limit_is_a_contraction(layer):
    """Jacobians by autodiff at 256 points: no singular value above limit^2."""
    g, params, _ = layer
    x = 3 * jax.random.normal(jax.random.key(5), (256, 6))
    jacobian = jax.jit(jax.vmap(jax.jacrev(lambda row: g(params, row[None])[0])))(x)
    assert np.linalg.svd(jacobian, compute_uv=False).max() <= LIMIT**2 + 1e-5


def test_the_inverse_converges_as_its_bound_says(layer):
    """|x_k - x| <= c^k / (1 - c) |g(z)| with c = limit^2."""
    _, params, x = layer
    net = MLP((16,), 6, 0, spectral.lip_swish)
    z = b.forward(b.residual(net), params, x)
    size = np.linalg.norm(net.apply({"params": params}, z), axis=-1)
    for k in (2, 5, 10):
        found = b.inverse(b.residual(net, num_iterations=k), params, z)
        error = np.linalg.norm(found - x, axis=-1)
        assert np.all(error <= LIMIT ** (2 * k) / (1 - LIMIT**2) * size + 1e-6)
        assert error.max() > 1e-9


def test_norms_are_the_largest_singular_values_of_numpy():
    params = {"a": {"kernel": jax.random.normal(jax.random.key(0), (2, 5, 4)), "bias": jnp.ones((2, 4))}}
    expected = np.linalg.svd(params["a"]["kernel"], compute_uv=False)[:, 0]
    np.testing.assert_allclose(spectral.exact_norms(params)["a/kernel"], expected, rtol=1e-5)
    vectors = spectral.power_iteration(params, spectral.start_vectors(jax.random.key(1), params), 200)
    np.testing.assert_allclose(spectral.norms(params, vectors)["a/kernel"], expected, rtol=1e-4)
    limited = spectral.limited(params, 0.5)
    np.testing.assert_allclose(spectral.exact_norms(limited)["a/kernel"], 0.5, rtol=1e-5)
    np.testing.assert_array_equal(limited["a"]["bias"], params["a"]["bias"])
    unchanged = spectral.limited(params, 100.0)["a"]["kernel"]
    np.testing.assert_array_equal(unchanged, params["a"]["kernel"])


def test_a_linear_field_multiplies_volumes_by_the_exponential_of_its_trace():
    """dx/dt = A x: z = exp(A) x by scipy, log-determinant tr A."""
    from flax import linen as nn
    from scipy import linalg

    class Linear(nn.Module):
        @nn.compact
        def __call__(self, x, t, cond=None):
            return nn.Dense(3, use_bias=False)(x)

    bijection, x = b.continuous(Linear(), integrate), jax.random.normal(jax.random.key(0), (2, 3))
    params = bijection.init(jax.random.key(1), x)
    z, log_det = jax.jit(bijection.forward_and_log_det)(params, x)
    matrix = np.asarray(params["Dense_0"]["kernel"])
    np.testing.assert_allclose(z, x @ linalg.expm(matrix), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, np.trace(matrix), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: b.roulette_log_det(jax.random.key(0), stop=1.0), "1.0"),
        (lambda: b.roulette_log_det(jax.random.key(0), num_exact=-1), "-1"),
        (lambda: b.residual(MLP((4,), 2), num_iterations=0), "got 0"),
    ],
)
def test_bad_values_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
