"""Editing of Gaussians, whose posteriors are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import paths
from jaxgen.samplers import jump
from jaxgen.samplers.ddpm import ddpm
from jaxgen.samplers.dpm_solver import dpm_solver_2m
from jaxgen.samplers.edit import condition, inpaint, interpolate, sdedit
from jaxgen.samplers.generate import encode, generate
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import integrate
from tests.analytic import gaussian_denoiser

KEY, PATH = jax.random.key(0), paths.cosine()
MEAN, VARIANCE = jnp.array([0.5, -1.0]), jnp.array([0.25, 2.0])
CORRELATION = 0.8


def correlated(x_t, t):
    """E[x_0 | x_t] for unit variances and a correlation: the matrix of the regression of x_0 on x_t."""
    covariance = jnp.array([[1.0, CORRELATION], [CORRELATION, 1.0]])
    alpha, sigma = PATH.alpha(t), PATH.sigma(t)
    return x_t @ (alpha * jnp.linalg.inv(alpha**2 * covariance + sigma**2 * jnp.eye(2)) @ covariance)


def test_sdedit_has_the_moments_of_noising_and_denoising():
    """X -> x_t -> p(x_0 | x_t), a linear regression with two known noises."""
    x, start = jnp.tile(jnp.array([[1.0, 1.0]]), (10_000, 1)), 0.5
    grid = jnp.linspace(start, PATH.t_min, 201)
    denoise = gaussian_denoiser(PATH, MEAN, VARIANCE)
    found = jax.jit(lambda x: sdedit(ddpm(), denoise, PATH, KEY, x, grid))(x)
    alpha, sigma = PATH.alpha(start), PATH.sigma(start)
    gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    mean = MEAN + gain * alpha * (x[0] - MEAN)
    variance = (gain * sigma) ** 2 + VARIANCE * (1 - gain * alpha)
    np.testing.assert_allclose(found.mean(0), mean, atol=0.04)
    np.testing.assert_allclose(found.var(0), variance, rtol=0.05)


def inpainted(num_resamples, jump_length):
    """Mean and standard deviation of the second number, where the first is 1.5."""
    x, known = jnp.tile(jnp.array([[1.5, jnp.nan]]), (4000, 1)), jnp.array([[True, False]])
    fill = lambda key: inpaint(  # noqa: E731
        ddpm(),
        correlated,
        PATH,
        key,
        x,
        known,
        paths.log_snr_grid(PATH, 60),
        jump_length=jump_length,
        num_resamples=num_resamples,
    )
    found = jax.jit(fill)(KEY)
    np.testing.assert_array_equal(found[:, 0], 1.5)
    return found[:, 1].mean(), found[:, 1].std()


def test_inpainting_comes_near_the_posterior_with_more_passes():
    """N(rho x, 1 - rho^2): replacement alone follows the known number too loosely, ten passes do not."""
    mean, std = CORRELATION * 1.5, np.sqrt(1 - CORRELATION**2)
    (once, once_std), (often, often_std) = inpainted(1, 1), inpainted(10, 5)
    assert once < mean - 0.1, once
    assert abs(often - mean) < 0.5 * abs(once - mean), (once, often)
    assert abs(often_std - std) < 0.05, (once_std, often_std)


@pytest.mark.parametrize("stepper", [ddpm(), dpm_solver_2m()], ids=["ddpm", "dpm_solver_2m"])
def test_conditioning_samples_the_posterior(stepper):
    """Isotropic data, one noisy measurement of a direction: the Gaussian posterior, with any stepper."""
    spread, noise, y = 0.8, 0.3, 1.2
    direction = jnp.array([0.6, 0.8])
    denoise = gaussian_denoiser(PATH, MEAN, spread**2)
    num = 10_000
    measured = condition(
        denoise, PATH, jnp.full((num, 1), y), lambda x: x @ direction[:, None], noise=noise, spread=spread
    )
    grid = paths.log_snr_grid(PATH, 200)

    @jax.jit
    def run(key):
        x = PATH.sigma(PATH.t_max) * jax.random.normal(key, (num, 2))
        for_stepper = jax.random.split(key)[0]
        return integrate(stepper, measured, PATH, for_stepper, x, grid) / PATH.alpha(PATH.t_min)

    x = run(KEY)
    gain = spread**2 / (spread**2 + noise**2)
    mean = MEAN + gain * (y - MEAN @ direction) * direction
    covariance = spread**2 * (jnp.eye(2) - gain * jnp.outer(direction, direction))
    np.testing.assert_allclose(x.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(jnp.cov(x.T), covariance, atol=0.03)


def test_interpolation_is_spherical_between_the_latents():
    """The flow of a Gaussian is affine, so that the way between two points is known; it begins and ends at them."""
    x_a, x_b = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(KEY, (2, 6, 2))
    shares, denoise = jnp.array([0.0, 0.3, 1.0]), gaussian_denoiser(PATH, MEAN, VARIANCE)
    grid = paths.log_snr_grid(PATH, 100)
    found = jax.jit(lambda: interpolate(heun(), denoise, PATH, x_a, x_b, shares, grid))()
    np.testing.assert_allclose(found[0], x_a, atol=0.02)
    np.testing.assert_allclose(found[2], x_b, atol=0.02)
    z_a, z_b = ((np.asarray(x) - MEAN) / np.sqrt(VARIANCE) for x in (x_a, x_b))
    angle = np.arccos((z_a * z_b).sum(-1) / np.linalg.norm(z_a, axis=-1) / np.linalg.norm(z_b, axis=-1))[:, None]
    middle = (np.sin(0.7 * angle) * z_a + np.sin(0.3 * angle) * z_b) / np.sin(angle)
    np.testing.assert_allclose(found[1], MEAN + np.sqrt(VARIANCE) * middle, atol=0.03)


@pytest.mark.parametrize("options", [{"jump_length": 0}, {"num_resamples": 0}])
def test_bad_passes_are_named(options):
    x = jnp.zeros((1, 2))
    with pytest.raises(ValueError, match="0"):
        inpaint(ddpm(), correlated, PATH, KEY, x, x > 0, paths.uniform_grid(PATH, 2), **options)


X, RISING = jnp.zeros((1, 2)), np.array([0.0, 0.5, 1.0])


@pytest.mark.parametrize("times", [RISING, RISING[:1], np.array([1.0, 0.5, 0.5])], ids=["rising", "one", "twice"])
@pytest.mark.parametrize(
    "use",
    [
        lambda grid: generate(ddpm(), correlated, PATH, KEY, (1, 2), grid),
        lambda grid: encode(heun(), correlated, PATH, X, grid),
        lambda grid: sdedit(ddpm(), correlated, PATH, KEY, X, grid),
        lambda grid: inpaint(ddpm(), correlated, PATH, KEY, X, X > 0, grid),
        lambda grid: interpolate(heun(), correlated, PATH, X, X, jnp.ones(1), grid),
        lambda grid: jump.decode(lambda x, t, s: x, PATH, X, grid),
    ],
    ids=["generate", "encode", "sdedit", "inpaint", "interpolate", "jump"],
)
def test_times_that_do_not_fall_are_named(use, times):
    with pytest.raises(ValueError, match=r"expected a grid of falling times, got \["):
        use(jnp.asarray(times))
