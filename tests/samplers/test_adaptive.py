"""Adaptive steps against scipy's, which are of the same pair of methods and the same controller."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxgen.samplers import adaptive

MATRIX = np.asarray(jax.random.normal(jax.random.key(0), (3, 3)))


def field(x, t):
    return jnp.tanh(x @ MATRIX) * jnp.cos(3 * t)


def flat_field(t, x):
    return np.ravel(np.tanh(x.reshape(4, 3) @ MATRIX) * np.cos(3 * t))


@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)], ids=["forwards", "backwards"])
def test_steps_are_those_of_scipy(span):
    """The same numbers at the end, by the same number of evaluations."""
    x = jax.random.normal(jax.random.key(1), (4, 3))
    solution = solve_ivp(flat_field, span, np.ravel(x), method="RK45", rtol=1e-4, atol=1e-4)
    found = jax.jit(lambda x: adaptive.solve(field, x, *span, rtol=1e-4, atol=1e-4))(x)
    np.testing.assert_allclose(found.y, solution.y[:, -1].reshape(4, 3), atol=2e-5)
    assert abs(int(found.num_evaluations) - solution.nfev) <= 6


def test_rejected_steps_and_few_evaluations_where_it_is_smooth():
    """The van der Pol oscillator, whose steps must shrink and grow: scipy's end and about its evaluations."""
    oscillator = lambda y, t: jnp.stack([y[1], 5 * (1 - y[0] ** 2) * y[1] - y[0]])  # noqa: E731
    flat = lambda t, y: [y[1], 5 * (1 - y[0] ** 2) * y[1] - y[0]]  # noqa: E731
    solution = solve_ivp(flat, (0, 10), [2.0, 0.0], method="RK45", rtol=1e-4, atol=1e-5)
    found = jax.jit(lambda y: adaptive.solve(oscillator, y, 0, 10, rtol=1e-4, atol=1e-5))(jnp.array([2.0, 0.0]))
    exact = solve_ivp(flat, (0, 10), [2.0, 0.0], method="DOP853", rtol=1e-10, atol=1e-10).y[:, -1]
    np.testing.assert_allclose(found.y, exact, atol=5e-3)
    assert abs(int(found.num_evaluations) - solution.nfev) <= 0.05 * solution.nfev


def halving_slope(errors):
    """How many times an error halves when the step does, fitted to a row of halved steps."""
    return -np.polyfit(range(len(errors)), np.log2(errors), 1)[0]


def test_orders_of_the_pair():
    """Against y = tanh(t^2 + c), which solves y' = 2 t (1 - y^2), by steps of fixed lengths in double precision.

    Order 5 over a whole interval, 6 in one step; the estimate is the error of the fourth-order solution, of order 5.
    """
    riccati = lambda y, t: 2 * t * (1 - y**2)  # noqa: E731
    solution = lambda t: np.tanh(t**2 + np.array([-1.0, -0.5, 0.0]))  # noqa: E731
    one = jax.jit(lambda y, t, h: adaptive._try(riccati, y, riccati(y, t), t, h))

    def end(num):
        y, h = solution(0.0), 1.5 / num
        for i in range(num):
            y = one(y, i * h, h)[0]
        return y

    with jax.enable_x64(new_val=True):
        whole = [abs(end(num) - solution(1.5)).max() for num in (16, 32, 64)]
        lengths = (0.05, 0.025, 0.0125)
        tried = [one(solution(1.0), 1.0, h) for h in lengths]
        single = [abs(y - solution(1.0 + h)).max() for h, (y, _, _) in zip(lengths, tried, strict=True)]
        estimates = [abs(error).max() for _, _, error in tried]
    assert abs(halving_slope(whole) - 5) < 0.25, whole
    assert abs(halving_slope(single) - 6) < 0.25, single
    assert abs(halving_slope(estimates) - 5) < 0.25, estimates


def test_evaluations_are_counted():
    calls = []

    def counted(y, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return -y

    solution = jax.jit(lambda y: adaptive.solve(counted, y, 0.0, 1.0))(jnp.ones(2))
    jax.block_until_ready(solution)
    jax.effects_barrier()
    assert len(calls) == int(solution.num_evaluations) == 2 + 6 * int(solution.num_steps)
    np.testing.assert_allclose(solution.y, np.exp(-1), rtol=1e-4)


def test_trees_and_examples_of_their_own():
    """A tree of two parts; under vmap each example has its own steps, more where the field is faster."""
    rates = jnp.array([1.0, 30.0])

    def one(rate):
        decay = lambda y, t: jax.tree.map(lambda leaf: -rate * leaf, y)  # noqa: E731
        return adaptive.solve(decay, {"a": jnp.ones(2), "b": jnp.ones(())}, 0.0, 1.0)

    found = jax.jit(jax.vmap(one))(rates)
    np.testing.assert_allclose(found.y["a"], np.exp(-np.array([[1.0, 1], [30, 30]])), atol=1e-4)
    np.testing.assert_allclose(found.y["b"], np.exp(-rates), atol=1e-4)
    assert found.num_steps[1] > found.num_steps[0]


def test_too_few_steps_give_no_number():
    found = adaptive.solve(field, jnp.ones((4, 3)), 0.0, 2.0, max_steps=2)
    assert jnp.isnan(found.y).all()
    assert found.num_steps == 2
    with pytest.raises(ValueError, match="0"):
        adaptive.dormand_prince(max_steps=0)
