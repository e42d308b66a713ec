"""Splines, autoregressive, linear and planar layers against Jacobians by autodiff, and against what defines them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxgen import bijections as b
from jaxgen.nets.masked import MaskedMLP
from jaxgen.nets.mlp import MLP
from tests.bijecting import NUM_CLASSES, of_both_ways, perturbed


def mlp(out_dim):
    return MLP((8,), out_dim, NUM_CLASSES)


def masked(outputs_per_dim, **options):
    return MaskedMLP((8, 8), outputs_per_dim, NUM_CLASSES, **options)


SPLINE = b.rational_quadratic_spline(4, bound=0.7)
"""Some of the data, which lies in the unit cube, is outside of the interval."""
CASES = {
    "shift": (b.coupling(mlp(3), elementwise=b.shift()), (5,)),
    "spline_coupling": (b.coupling(mlp(3 * SPLINE.num_params), elementwise=SPLINE), (5,)),
    "masked_autoregressive": (b.masked_autoregressive(masked(2)), (5,)),
    "inverse_autoregressive": (b.inverse_autoregressive(masked(2)), (5,)),
    "spline_autoregressive": (b.masked_autoregressive(masked(SPLINE.num_params), SPLINE), (5,)),
    "invertible_1x1": (b.invertible_1x1(), (2, 2, 3)),
    "invertible_1x1_vectors": (b.repeat(b.invertible_1x1(), 2), (4,)),
    "planar": (b.repeat(b.planar(), 2), (4,)),
    "coupling_layers": (b.coupling_layers(5, mlp, b.scale_shift(), num_layers=3), (5,)),
    "autoregressive_layers": (b.autoregressive_layers(3, masked, b.scale_shift(), num_layers=2), (3,)),
}


test_log_det_is_that_of_the_jacobian_by_autodiff, test_inverse_undoes_forward_and_its_jacobian = of_both_ways(CASES)


@pytest.fixture(scope="module")
def raw():
    """Raw parameters of four splines, some extreme."""
    draws = jax.random.normal(jax.random.key(0), (4, 1, SPLINE.num_params))
    return draws * jnp.array([1.0, 3.0, 10.0, 100.0])[:, None, None]


def test_a_spline_maps_its_interval_onto_itself_increasingly_and_ends_with_slope_one(raw):
    """Numerically: rising differences, ends that meet the identity, and one-sided slopes at the ends."""
    x = jnp.linspace(-0.8, 0.8, 401)
    z, log_slope = jax.jit(SPLINE.forward_and_log_det)(raw, jnp.broadcast_to(x, (4, 401)))
    assert np.all(np.diff(z[:2]) > 0)
    assert np.all(np.diff(z) > -1e-7), "flat to rounding where parameters are extreme, but never falling"
    outside = np.abs(x) > 0.7
    np.testing.assert_array_equal(z[:, outside], np.broadcast_to(x[outside], (4, outside.sum())))
    np.testing.assert_array_equal(log_slope[:, outside], 0)
    ends, slopes = SPLINE.forward_and_log_det(raw[:3], jnp.broadcast_to(jnp.array([-0.7, 0.7]), (3, 2)))
    np.testing.assert_allclose(ends, np.broadcast_to([-0.7, 0.7], (3, 2)), atol=1e-6)
    np.testing.assert_allclose(slopes, 0, atol=1e-4)


def test_splines_of_any_parameters_have_finite_gradients(raw):
    x = jnp.broadcast_to(jnp.linspace(-0.8, 0.8, 33), (4, 33))
    for function in (SPLINE.forward_and_log_det, SPLINE.inverse_and_log_det):
        total = lambda raw, x, f=function: sum(part.sum() for part in f(raw, x))  # noqa: E731
        for gradient in jax.jit(jax.grad(total, (0, 1)))(raw, x):
            assert np.all(np.isfinite(gradient))


def test_derivatives_of_splines_are_those_of_finite_differences(raw):
    """Of first and second order, forward and backward, by the parameters and by the place, in double precision."""
    with jax.enable_x64(new_val=True):
        own = jnp.asarray(raw[:2], jnp.float64)
        x = jnp.array([[-0.63, -0.21, 0.02, 0.35, 0.68], [-0.8, -0.5, 0.1, 0.44, 0.9]])
        for function in (SPLINE.forward_and_log_det, SPLINE.inverse_and_log_det):
            check_grads(jax.jit(function), (own, x), order=2, modes=("fwd", "rev"))


def test_a_spline_of_zeros_is_the_identity():
    x = jnp.linspace(-6, 6, 25)
    z, log_slope = b.rational_quadratic_spline(8, bound=5.0).forward_and_log_det(jnp.zeros((25, 23)), x)
    np.testing.assert_allclose(z, x, atol=2e-6)
    np.testing.assert_allclose(log_slope, 0, atol=2e-6)


@pytest.mark.parametrize("name", ["masked_autoregressive", "inverse_autoregressive"])
def test_the_jacobian_is_triangular_in_the_natural_order(name):
    """By autodiff, under parameters that use every connection that is there."""
    bijection, cond = CASES[name][0], jnp.zeros(1, jnp.int32)
    x = jax.random.normal(jax.random.key(1), (1, 5))
    params = jax.jit(lambda: perturbed(bijection.init(jax.random.key(2), x, cond)))()
    jacobian = jax.jit(jax.jacrev(lambda x: b.forward(bijection, params, x, cond)))(x)[0, :, 0]
    np.testing.assert_array_equal(np.asarray(jacobian) != 0, np.tri(5, dtype=bool))


def test_vectors_condition_a_layer():
    """The label of a class and its one-hot vector are the same condition."""
    bijection = b.masked_autoregressive(masked(2))
    x, label = jax.random.normal(jax.random.key(1), (3, 4)), jnp.arange(3)
    params = jax.jit(lambda: perturbed(bijection.init(jax.random.key(2), x, label)))()
    function = jax.jit(bijection.forward_and_log_det)
    for got, expected in zip(function(params, x, jnp.eye(3)), function(params, x, label), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_fresh_1x1_convolution_is_a_random_rotation():
    """Its matrix, read off the identity: orthogonal, without log-determinant, other for another key."""
    bijection, x = b.invertible_1x1(), jnp.eye(6)
    matrices = [b.forward(bijection, bijection.init(jax.random.key(i), x), x) for i in range(2)]
    for matrix in matrices:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(6), atol=1e-5)
        assert abs(np.linalg.slogdet(matrix)[1]) < 1e-5
    assert np.abs(matrices[0] - matrices[1]).max() > 0.1


def test_a_planar_flow_stays_invertible_however_its_parameters_push():
    """w^T u of -20 would fold space; the derivative of the inverse, through bisection, is that of the forward map."""
    bijection = b.planar()
    w, x = jnp.array([1.0, 2.0]), jax.random.normal(jax.random.key(1), (64, 2))
    params = {"w": w, "u": -4 * w, "b": jnp.array(0.3)}
    z, log_det = jax.jit(bijection.forward_and_log_det)(params, x)
    assert np.all(np.isfinite(log_det))
    np.testing.assert_allclose(jax.jit(bijection.inverse_and_log_det)(params, z)[0], x, atol=2e-4)
    jacobian = lambda f: jax.jit(jax.jacrev(lambda y: f(params, y[None])[0][0]))  # noqa: E731
    product = jacobian(bijection.forward_and_log_det)(x[0]) @ jacobian(bijection.inverse_and_log_det)(z[0])
    np.testing.assert_allclose(product, np.eye(2), atol=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: b.rational_quadratic_spline(0), "got 0"),
        (lambda: b.rational_quadratic_spline(8, bound=float("inf")), "inf"),
        (lambda: b.rational_quadratic_spline(8, min_width=0.2), "0.2"),
        (lambda: b.rational_quadratic_spline(8, min_slope=1.0), "1.0"),
        (lambda: b.planar(num_halvings=0), "got 0"),
        (lambda: b.coupling_layers(1, mlp, b.shift(), num_layers=1), "got 1"),
        (lambda: b.autoregressive_layers(0, masked, b.shift(), num_layers=1), "got 0"),
        (lambda: b.multi_scale((6, 4, 1), lambda c: (), lambda c: b.reverse(), num_levels=1, num_halvings=2), "6, 4"),
    ],
)
def test_bad_values_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_network_of_the_wrong_width_is_named():
    bijection, x = b.masked_autoregressive(MaskedMLP((4,), 3)), jnp.ones((2, 4))
    params = bijection.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"\(2, 4, 2\)"):
        bijection.forward_and_log_det(params, x)
