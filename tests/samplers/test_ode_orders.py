"""Orders of the Runge-Kutta methods on the probability flow of a mixture, in double precision, against scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxgen import paths
from jaxgen.samplers import adaptive, ode
from tests import analytic

MIXTURE, PATH = analytic.mixture(), paths.linear()
SPANS = {"to_data": (0.98, 0.02), "to_noise": (0.02, 0.98)}
every_span = pytest.mark.parametrize("span", SPANS.values(), ids=SPANS.keys())


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(new_val=True):
        yield


def flow(x, t):
    """dx/dt = (x - x0) / t, which it is on the linear path, with x0 from the exact score."""
    x0 = (x + t**2 * analytic.score(MIXTURE, PATH)(x, t)) / (1 - t)
    return (x - x0) / t


def ends(span):
    """Sixteen points and where the flow carries them: noise, or data that noise is added to."""
    rng = np.random.default_rng(0)
    noise, data = rng.normal(size=(16, 2)), np.float64(analytic.sample(MIXTURE, 0, 16))
    x, slope = (1 - span[0]) * data + span[0] * noise, jax.jit(flow)
    flat = lambda t, y: np.ravel(slope(y.reshape(16, 2), t))  # noqa: E731
    solution = solve_ivp(flat, span, x.ravel(), method="DOP853", rtol=1e-13, atol=1e-13)
    return jnp.asarray(x), solution.y[:, -1].reshape(16, 2)


def slope(numbers, found, exact):
    """That of the largest error over `numbers`, in logarithms."""
    errors = [float(abs(x - exact).max()) for x in found]
    return np.polyfit(np.log(numbers), np.log(errors), 1)[0], errors


@every_span
def test_runge_kutta_is_of_fourth_order(span):
    (x, exact), numbers = ends(span), (10, 20, 40)
    found = [jax.jit(lambda x, num=num: ode.solve(flow, x, jnp.linspace(*span, num + 1)))(x) for num in numbers]
    order, errors = slope(numbers, found, exact)
    assert abs(order + 4) < 0.25, (order, errors)


@every_span
def test_steps_of_dormand_and_prince_are_of_fifth_order(span):
    """By steps of equal length."""
    (x, exact), numbers = ends(span), (40, 56, 80)
    one = jax.jit(lambda x, t, h: adaptive._try(flow, x, flow(x, t), t, h)[0])

    def end(num):
        y, h = x, (span[1] - span[0]) / num
        for i in range(num):
            y = one(y, span[0] + i * h, h)
        return y

    order, errors = slope(numbers, [end(num) for num in numbers], exact)
    assert abs(order + 5) < 0.25, (order, errors)


@every_span
def test_the_error_of_adaptive_steps_is_proportional_to_their_tolerance(span):
    """With steps of length h the error is of order h^5, and so is what the tolerance bounds in a step."""
    (x, exact), tolerances = ends(span), (1e-7, 1e-8, 1e-9, 1e-10)
    run = jax.jit(lambda tolerance: adaptive.solve(flow, x, *span, rtol=tolerance, atol=tolerance).y)
    found = [run(tolerance) for tolerance in tolerances]
    power, errors = slope(tolerances, found, exact)
    assert abs(power - 1) < 0.25, (power, errors)
    assert all(error < 1.2 * tolerance for error, tolerance in zip(errors, tolerances, strict=True)), errors
