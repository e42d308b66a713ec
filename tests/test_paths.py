"""Noise paths against their defining integrals and equations, and the views of the denoiser against Gaussians."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jaxgen import paths
from tests.analytic import gaussian_denoiser

PATHS = {
    "variance_preserving": paths.variance_preserving(),
    "cosine": paths.cosine(),
    "variance_exploding": paths.variance_exploding(),
}
GRIDS = [paths.uniform_grid, paths.log_snr_grid, paths.karras_grid]
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


@pytest.mark.parametrize("t", [1e-5, 0.01, 0.5, 1.0])
def test_variance_preserving_solves_the_sde(t):
    """alpha = exp(-int beta / 2) and sigma^2 = 1 - alpha^2, with the integral by quadrature in float64."""
    area = integrate.quad(lambda s: 0.1 + 19.9 * s, 0, t)[0]
    path = paths.variance_preserving()
    np.testing.assert_allclose(path.alpha(t), np.exp(-area / 2), rtol=1e-5)
    np.testing.assert_allclose(path.sigma(t), np.sqrt(-np.expm1(-area)), rtol=1e-5)


def test_cosine_is_a_quarter_circle():
    path, t = paths.cosine(), np.linspace(0, 1, 7)
    np.testing.assert_allclose(path.alpha(t) + 1j * path.sigma(t), np.exp(0.5j * np.pi * t), atol=1e-6)


def test_variance_exploding_is_geometric():
    path = paths.variance_exploding(sigma_min=0.01, sigma_max=50.0)
    np.testing.assert_allclose(path.sigma(np.linspace(0, 1, 9)), np.geomspace(0.01, 50, 9), rtol=1e-5)
    np.testing.assert_array_equal(path.alpha(np.linspace(0, 1, 9)), 1.0)


@every_path
def test_time_of_log_snr_inverts(path):
    t = jnp.linspace(path.t_min, path.t_max, 50)
    # Away from the ends; there float32 resolves the log-SNR of the cosine path to 1e-4 only.
    chex.assert_trees_all_close(paths.time_of_log_snr(path, paths.log_snr(path, t)), t, atol=1e-5)


@every_path
@pytest.mark.parametrize("grid", GRIDS)
def test_grids_descend_between_the_ends(path, grid):
    times = grid(path, 40)
    chex.assert_shape(times, (41,))
    assert (jnp.diff(times) < 0).all()
    np.testing.assert_allclose(times[jnp.array([0, -1])], [path.t_max, path.t_min], rtol=1e-5)


def test_log_snr_grid_is_even():
    path = paths.variance_preserving()
    steps = np.diff(paths.log_snr(path, paths.log_snr_grid(path, 30)))
    np.testing.assert_allclose(steps, steps.mean(), rtol=2e-3)


def test_karras_grid_equals_its_formula():
    """Noise levels by the source's equation 5, in float64."""
    path = paths.variance_exploding(sigma_min=0.002, sigma_max=80.0)
    share = np.arange(19) / 18
    expected = (80 ** (1 / 7) + share * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(path.sigma(paths.karras_grid(path, 18)), expected, rtol=1e-4)


@every_path
def test_views_equal_those_of_a_gaussian(path):
    """Score, eps and v of the exact denoiser against the gradient of the marginal log-density."""
    mean, variance, t = jnp.array([1.0, -2.0]), jnp.array([0.5, 2.0]), jnp.array([0.4, 0.6, 0.9])
    x_t = jax.random.normal(jax.random.key(0), (3, 2))
    alpha, sigma = paths.scales(path, t, x_t)
    score = -(x_t - alpha * mean) / (alpha**2 * variance + sigma**2)
    x0 = gaussian_denoiser(path, mean, variance)(x_t, t[:, None])
    noise = -sigma * score
    for view, expected in [
        (paths.SCORE, score),
        (paths.EPS, noise),
        (paths.V, (alpha * noise - sigma * x0) / jnp.sqrt(alpha**2 + sigma**2)),
    ]:
        chex.assert_trees_all_close(view.from_x0(path, x_t, t, x0), expected, rtol=2e-4, atol=1e-4)
        chex.assert_trees_all_close(view.to_x0(path, x_t, t, expected), x0, rtol=2e-4, atol=2e-3)


@every_path
def test_velocity_is_the_derivative_of_the_flow(path):
    """Against the closed-form probability flow of a Gaussian, differentiated in time."""
    mean, variance, x_t, t = 0.7, 0.5, jnp.array([[0.3], [-1.0]]), 0.4
    spread = lambda t: jnp.sqrt(path.alpha(t) ** 2 * variance + path.sigma(t) ** 2)  # noqa: E731
    z = (x_t - path.alpha(t) * mean) / spread(t)
    expected = jax.jvp(lambda t: path.alpha(t) * mean + spread(t) * z, (t,), (1.0,))[1]
    x0 = gaussian_denoiser(path, mean, variance)(x_t, t)
    chex.assert_trees_all_close(paths.velocity(path, x_t, t, x0), expected, rtol=1e-4)


@every_path
def test_posterior_equals_gaussian_conditioning(path):
    """q(x_s | x_t, x_0) from the joint covariance of x_s and x_t, in float64."""
    s, t, x0, x_t = 0.3, 0.6, 0.8, -0.4
    (alpha_s, sigma_s), (alpha_t, sigma_t) = ((float(path.alpha(u)), float(path.sigma(u))) for u in (s, t))
    covariance = alpha_t / alpha_s * sigma_s**2
    mean = alpha_s * x0 + covariance / sigma_t**2 * (x_t - alpha_t * x0)
    scale = np.sqrt(sigma_s**2 - covariance**2 / sigma_t**2)
    found = paths.posterior(path, jnp.full((1, 1), x_t), t, s, jnp.full((1, 1), x0))
    np.testing.assert_allclose(np.ravel(found[0]), mean, rtol=1e-4)
    np.testing.assert_allclose(found[1], scale, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: paths.variance_preserving(beta_min=2.0, beta_max=1.0), "got 2.0 and 1.0"),
        (lambda: paths.cosine(margin=0.5), "got 0.5"),
        (lambda: paths.variance_exploding(sigma_min=0.0), "got 0.0"),
        (lambda: paths.uniform_grid(paths.cosine(), 0), "got 0"),
    ],
)
def test_bad_numbers_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
