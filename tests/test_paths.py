"""Noise paths against their defining integrals and equations, and the views of the denoiser against Gaussians."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxgen import paths
from tests.analytic import gaussian_denoiser

PATHS = {
    "variance_preserving": paths.variance_preserving(),
    "cosine": paths.cosine(),
    "variance_exploding": paths.variance_exploding(),
    "sub_variance_preserving": paths.sub_variance_preserving(),
    "linear": paths.linear(),
    "karras": paths.karras(),
    "ddpm": paths.ddpm(),
    "of_log_snr": paths.of_log_snr(lambda t: 12 - 25 * t),
}
GRIDS = [paths.uniform_grid, paths.quadratic_grid, paths.log_snr_grid, paths.karras_grid]
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def at(path, share):
    """A time of any path, by its share of the clock."""
    return path.t_min + share * (path.t_max - path.t_min)


@pytest.mark.parametrize("t", [1e-5, 0.01, 0.5, 1.0])
def test_variance_preserving_solves_the_sde(t):
    """alpha = exp(-int beta / 2) and sigma^2 = 1 - alpha^2, with the integral by quadrature in float64."""
    area = integrate.quad(lambda s: 0.1 + 19.9 * s, 0, t)[0]
    path = paths.variance_preserving()
    np.testing.assert_allclose(path.alpha(t), np.exp(-area / 2), rtol=1e-5)
    np.testing.assert_allclose(path.sigma(t), np.sqrt(-np.expm1(-area)), rtol=1e-5)


@pytest.mark.parametrize("t", [0.01, 0.5, 1.0])
def test_sub_variance_preserving_solves_the_sde(t):
    """d sigma^2 = (-beta sigma^2 + g^2) dt with g^2 = beta (1 - exp(-2 int beta)), integrated in float64."""
    beta, area = lambda s: 0.1 + 19.9 * s, lambda s: 0.1 * s + 9.95 * s**2
    slope = lambda s, y: beta(s) * (-y - np.expm1(-2 * area(s)))  # noqa: E731
    expected = integrate.solve_ivp(slope, (0, t), [0.0], rtol=1e-10, atol=1e-12).y[0, -1]
    np.testing.assert_allclose(paths.sub_variance_preserving().sigma(t) ** 2, expected, rtol=1e-5)


def test_ddpm_is_the_product_of_its_betas():
    """In float64, at every step, and at -1, which is clean data."""
    path, alpha_bar = paths.ddpm(), np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(path.alpha(jnp.arange(1000)) ** 2, alpha_bar, rtol=1e-5)
    np.testing.assert_allclose(path.sigma(jnp.arange(1000)) ** 2, 1 - alpha_bar, rtol=1e-5)
    np.testing.assert_array_equal([path.alpha(-1.0), path.sigma(-1.0)], [1.0, 0.0])


def test_of_log_snr_has_that_log_snr():
    path, t = paths.of_log_snr(lambda t: 12 - 25 * t), jnp.linspace(0, 1, 9)
    np.testing.assert_allclose(paths.log_snr(path, t), 12 - 25 * t, atol=1e-5)
    np.testing.assert_allclose(path.alpha(t) ** 2 + path.sigma(t) ** 2, 1, rtol=1e-6)


def test_cosine_is_a_quarter_circle():
    path, t = paths.cosine(), np.linspace(0, 1, 7)
    np.testing.assert_allclose(path.alpha(t) + 1j * path.sigma(t), np.exp(0.5j * np.pi * t), atol=1e-6)


def test_variance_exploding_is_geometric():
    path = paths.variance_exploding(sigma_min=0.01, sigma_max=50.0)
    np.testing.assert_allclose(path.sigma(np.linspace(0, 1, 9)), np.geomspace(0.01, 50, 9), rtol=1e-5)
    np.testing.assert_array_equal(path.alpha(np.linspace(0, 1, 9)), 1.0)


@every_path
def test_time_of_log_snr_inverts(path):
    t = at(path, jnp.linspace(0, 1, 50))
    found = paths.time_of_log_snr(path, paths.log_snr(path, t))
    # Away from the ends; there float32 resolves the log-SNR of the cosine path to 1e-4 only.
    chex.assert_trees_all_close(found, t, atol=1e-5 * (path.t_max - path.t_min))


@every_path
@pytest.mark.parametrize("grid", GRIDS)
def test_grids_descend_between_the_ends(path, grid):
    times = grid(path, 40)
    chex.assert_shape(times, (41,))
    assert (jnp.diff(times) < 0).all()
    np.testing.assert_allclose(times[jnp.array([0, -1])], [path.t_max, path.t_min], rtol=1e-5)


@every_path
def test_uniform_and_quadratic_grids_equal_their_formulas(path):
    """In float64, with i = num_steps .. 0: t_min + span i / num_steps, and the square of an even sequence."""
    share, span = np.arange(25, -1, -1) / 25, path.t_max - path.t_min
    root = np.linspace(np.sqrt(span), 0, 26)
    np.testing.assert_allclose(paths.uniform_grid(path, 25), path.t_min + span * share, rtol=1e-5, atol=1e-6 * span)
    np.testing.assert_allclose(paths.quadratic_grid(path, 25), path.t_min + root**2, rtol=1e-5, atol=1e-6 * span)


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
    mean, variance, t = jnp.array([1.0, -2.0]), jnp.array([0.5, 2.0]), at(path, jnp.array([0.4, 0.6, 0.9]))
    x_t = jax.random.normal(jax.random.key(0), (3, 2))
    alpha, sigma = paths.scales(path, t, x_t)
    score = -(x_t - alpha * mean) / (alpha**2 * variance + sigma**2)
    x0 = gaussian_denoiser(path, mean, variance)(x_t, t[:, None])
    noise = -sigma * score
    for view, expected in [
        (paths.SCORE, score),
        (paths.EPS, noise),
        (paths.V, (alpha * noise - sigma * x0) / jnp.sqrt(alpha**2 + sigma**2)),
        (paths.VELOCITY, paths.velocity(path, x_t, t, x0)),
        (paths.preconditioned(sigma_data=1.0), (sigma * x0 - alpha * noise) / jnp.sqrt(alpha**2 + sigma**2)),
    ]:
        chex.assert_trees_all_close(view.from_x0(path, x_t, t, x0), expected, rtol=2e-4, atol=1e-4)
        chex.assert_trees_all_close(view.to_x0(path, x_t, t, expected), x0, rtol=2e-4, atol=2e-3)


@every_path
def test_velocity_is_the_derivative_of_the_flow(path):
    """Against the closed-form probability flow of a Gaussian, differentiated in time."""
    mean, variance, x_t, t = 0.7, 0.5, jnp.array([[0.3], [-1.0]]), at(path, 0.4)
    spread = lambda t: jnp.sqrt(path.alpha(t) ** 2 * variance + path.sigma(t) ** 2)  # noqa: E731
    z = (x_t - path.alpha(t) * mean) / spread(t)
    expected = jax.jvp(lambda t: path.alpha(t) * mean + spread(t) * z, (t,), (1.0,))[1]
    x0 = gaussian_denoiser(path, mean, variance)(x_t, t)
    chex.assert_trees_all_close(paths.velocity(path, x_t, t, x0), expected, rtol=1e-4)


@every_path
def test_posterior_equals_gaussian_conditioning(path):
    """q(x_s | x_t, x_0) from the joint covariance of x_s and x_t, in float64."""
    s, t, x0, x_t = at(path, 0.3), at(path, 0.6), 0.8, -0.4
    (alpha_s, sigma_s), (alpha_t, sigma_t) = ((float(path.alpha(u)), float(path.sigma(u))) for u in (s, t))
    covariance = alpha_t / alpha_s * sigma_s**2
    mean = alpha_s * x0 + covariance / sigma_t**2 * (x_t - alpha_t * x0)
    scale = np.sqrt(sigma_s**2 - covariance**2 / sigma_t**2)
    found = paths.posterior(path, jnp.full((1, 1), x_t), t, s, jnp.full((1, 1), x0))
    np.testing.assert_allclose(np.ravel(found[0]), mean, rtol=1e-4)
    np.testing.assert_allclose(found[1], scale, rtol=1e-4)


def test_preconditioning_equals_the_table_of_its_source():
    """c_skip, c_out, c_in and c_noise at sigma_data = 0.5, in the source's words."""
    path, sigma, x_t = paths.karras(), jnp.array([0.1, 1.0, 30.0]), jax.random.normal(jax.random.key(0), (3, 2))
    view, square, column = paths.preconditioned(), 0.25 + sigma**2, (slice(None), None)
    skip, out, scale = 0.25 / square, sigma * 0.5 / jnp.sqrt(square), 1 / jnp.sqrt(square)
    np.testing.assert_allclose(view.to_x0(path, x_t, sigma, 0 * x_t), skip[column] * x_t, rtol=1e-5)
    np.testing.assert_allclose(view.to_x0(path, 0 * x_t, sigma, x_t), out[column] * x_t, rtol=1e-5)
    np.testing.assert_allclose(view.scale(path, sigma, x_t), scale[column], rtol=1e-6)
    np.testing.assert_allclose(view.level(path, sigma), jnp.log(sigma) / 4, atol=1e-6)


def test_preconditioned_output_has_unit_variance():
    """By a sample: data of standard deviation 0.5, all along the path."""
    path, x0 = paths.linear(), 0.5 * jax.random.normal(jax.random.key(0), (100_000, 1))
    for t in (0.01, 0.5, 0.99):
        x_t = paths.perturb(path, x0, t, jax.random.normal(jax.random.key(1), x0.shape))
        out = paths.preconditioned().from_x0(path, x_t, t, x0)
        np.testing.assert_allclose([out.std(), (paths.preconditioned().scale(path, t, x_t) * x_t).std()], 1, rtol=0.01)


@pytest.mark.parametrize("view", [paths.X0, paths.EPS, paths.V, paths.SCORE, paths.VELOCITY, paths.preconditioned()])
def test_sensitivity_is_the_derivative_by_x0(view):
    path, t = paths.cosine(), jnp.array([0.2, 0.7])
    slope = jax.vmap(jax.grad(lambda x0, t: view.from_x0(path, jnp.ones((1, 1)), t, x0[None, None]).sum()))
    np.testing.assert_allclose(paths.sensitivity(path, view, t), slope(jnp.zeros(2), t), rtol=1e-5)


def test_weights_equal_their_formulas():
    """Each in the view for which its source states it."""
    path, t = paths.cosine(), jnp.array([0.05, 0.3, 0.8])
    snr = (1 / jnp.tan(jnp.pi * t / 2)) ** 2
    np.testing.assert_allclose(paths.min_snr_weight(5.0)(path, paths.X0, t), jnp.minimum(snr, 5), rtol=1e-4)
    np.testing.assert_allclose(paths.min_snr_weight(5.0)(path, paths.EPS, t), jnp.minimum(5 / snr, 1), rtol=1e-4)
    np.testing.assert_allclose(paths.denoising_weight(path, paths.EPS, t), 1 / snr, rtol=1e-4)
    slope = 2 * jnp.pi / jnp.sin(jnp.pi * t)
    np.testing.assert_allclose(paths.variational_weight(path, paths.EPS, t), slope / 2, rtol=1e-4)
    shifted = jax.nn.sigmoid(2 - jnp.log(snr))
    np.testing.assert_allclose(paths.sigmoid_weight(2.0)(path, paths.EPS, t), shifted * slope / 2, rtol=1e-4)


def test_log_normal_times_have_that_distribution():
    path = paths.karras()
    noise = np.log(paths.log_normal_times()(path, jax.random.key(0), 4000))
    assert stats.kstest(noise, stats.norm(-1.2, 1.2).cdf).pvalue > 1e-3


def test_logit_normal_times_have_that_distribution():
    t = np.asarray(paths.logit_normal_times(mean=0.5)(paths.linear(margin=1e-6), jax.random.key(0), 4000))
    assert stats.kstest(np.log(t / (1 - t)), stats.norm(0.5, 1.0).cdf).pvalue > 1e-3


def test_trailing_grid_equals_the_table_of_its_source():
    np.testing.assert_array_equal(paths.trailing_grid(paths.ddpm(), 5), [999, 799, 599, 399, 199, -1])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: paths.variance_preserving(beta_min=2.0, beta_max=1.0), "got 2.0 and 1.0"),
        (lambda: paths.cosine(margin=0.5), "got 0.5"),
        (lambda: paths.variance_exploding(sigma_min=0.0), "got 0.0"),
        (lambda: paths.linear(margin=0.0), "got 0.0"),
        (lambda: paths.karras(sigma_min=2.0, sigma_max=1.0), "got 2.0"),
        (lambda: paths.discrete([0.1, 1.5]), "1.5"),
        (lambda: paths.of_log_snr(lambda t: -t, t_min=1.0), "got 1.0 and 1.0"),
        (lambda: paths.preconditioned(sigma_data=0.0), "got 0.0"),
        (lambda: paths.uniform_grid(paths.cosine(), 0), "got 0"),
    ],
)
def test_bad_numbers_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("num_steps", [0, -1])
@pytest.mark.parametrize("grid", [*GRIDS, paths.trailing_grid])
def test_grids_of_no_steps_are_named(grid, num_steps):
    with pytest.raises(ValueError, match=f"num_steps must be at least 1, got {num_steps}"):
        grid(paths.cosine(), num_steps)
