"""Runge-Kutta and divergences against scipy and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate

from jaxgen.samplers import ode

MATRIX = jax.random.normal(jax.random.key(0), (3, 3))


def field(x, t):
    return jnp.tanh(x @ MATRIX) * jnp.cos(t)


def test_solve_equals_scipy():
    x = jax.random.normal(jax.random.key(1), (4, 3))
    flat = lambda t, x: np.ravel(np.tanh(x.reshape(4, 3) @ np.asarray(MATRIX)) * np.cos(t))  # noqa: E731
    expected = integrate.solve_ivp(flat, (0, 2), np.ravel(x), rtol=1e-9, atol=1e-9).y[:, -1].reshape(4, 3)
    np.testing.assert_allclose(ode.solve(field, x, jnp.linspace(0, 2, 33)), expected, atol=1e-5)


def test_runge_kutta_is_of_fourth_order():
    """dy/dt = y: the error at t = 1 against e."""
    numbers = np.array([2, 4, 8])
    found = [abs(ode.solve(lambda y, t: y, jnp.ones(()), jnp.linspace(0, 1, num + 1)) - np.e) for num in numbers]
    assert abs(np.polyfit(np.log(numbers), np.log(found), 1)[0] + 4) < 0.25


def test_exact_divergence_equals_the_trace_of_the_jacobian():
    x = jax.random.normal(jax.random.key(2), (5, 3))
    value, divergence = ode.exact_divergence(lambda x: field(x, 0.3), x)
    jacobian = jax.vmap(jax.jacrev(lambda row: field(row[None], 0.3)[0]))(x)
    np.testing.assert_allclose(divergence, jnp.trace(jacobian, axis1=1, axis2=2), rtol=1e-5)
    np.testing.assert_allclose(value, field(x, 0.3), rtol=1e-6)


def test_hutchinson_divergence_is_unbiased():
    x = jax.random.normal(jax.random.key(2), (5, 3))
    probes = jax.random.rademacher(jax.random.key(3), (20_000, 5, 3), x.dtype)
    estimate = ode.hutchinson_divergence(lambda x: field(x, 0.3), x, probes)[1]
    np.testing.assert_allclose(estimate, ode.exact_divergence(lambda x: field(x, 0.3), x)[1], atol=0.05)


def test_density_along_a_linear_flow():
    """dx/dt = A x multiplies volumes by exp(t tr A)."""
    x = jnp.ones((2, 3))
    integral = ode.solve_with_divergence(lambda x, t: x @ MATRIX, x, jnp.linspace(0, 0.5, 20))[1]
    np.testing.assert_allclose(integral, 0.5 * jnp.trace(MATRIX), rtol=1e-5)
