"""Steppers on Gaussians and mixtures whose denoiser is exact; one loop, counted and compiled once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import paths
from jaxgen.samplers.ddim import ddim
from jaxgen.samplers.ddpm import ddpm
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import State, Stepper, integrate, trajectory
from tests.analytic import gaussian_denoiser, gaussian_flow, log_prob, mixture, sample, score

PATHS = {
    "variance_preserving": paths.variance_preserving(),
    "cosine": paths.cosine(),
    "variance_exploding": paths.variance_exploding(),
}
STEPPERS = {"ddpm": ddpm(), "ddim": ddim(), "ddim_half": ddim(eta=0.5), "heun": heun()}
MEAN, VARIANCE = jnp.array([0.5, -1.0]), jnp.array([0.25, 2.0])
KEY = jax.random.key(0)
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
every_stepper = pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS.keys())


def errors(stepper, path, grid, numbers):
    """Largest distance from the closed-form flow of a Gaussian, for each number of steps."""
    x = path.sigma(path.t_max) * jax.random.normal(KEY, (64, 2))
    exact = gaussian_flow(path, MEAN, VARIANCE, x, path.t_max, path.t_min)
    run = jax.jit(lambda times: integrate(stepper, gaussian_denoiser(path, MEAN, VARIANCE), path, KEY, x, times))
    return np.array([abs(run(grid(path, num)) - exact).max() for num in numbers])


@every_path
@pytest.mark.parametrize(("stepper", "order"), [(ddim(), 1), (heun(), 2)], ids=["ddim", "heun"])
def test_order_of_convergence(path, stepper, order):
    numbers = [40, 80, 160]
    found = errors(stepper, path, paths.log_snr_grid, numbers)
    slope = -np.polyfit(np.log(numbers), np.log(found), 1)[0]
    assert abs(slope - order) < 0.25, (slope, found)


@every_path
def test_heun_encodes_in_the_other_direction(path):
    x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(KEY, (64, 2))
    rising = paths.log_snr_grid(path, 200)[::-1]
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    found = jax.jit(lambda x: integrate(heun(), denoise, path, KEY, x, rising))(x)
    exact = gaussian_flow(path, MEAN, VARIANCE, x, path.t_min, path.t_max)
    chex.assert_trees_all_close(found, exact, atol=2e-3 * path.sigma(path.t_max))


def test_heun_equals_the_trapezoid_rule():
    """One step on the variance-exploding path against the source's algorithm 1, in its own words."""
    path = paths.variance_exploding()
    denoise, x, t, s = gaussian_denoiser(path, MEAN, VARIANCE), jnp.array([[3.0, -2.0]]), 0.8, 0.7
    sigma_t, sigma_s = path.sigma(t), path.sigma(s)
    slope = (x - denoise(x, t)) / sigma_t
    euler = x + (sigma_s - sigma_t) * slope
    expected = x + (sigma_s - sigma_t) * 0.5 * (slope + (euler - denoise(euler, s)) / sigma_s)
    found = heun().step(denoise, path, KEY, State(x), t, s).x
    chex.assert_trees_all_close(found, expected, rtol=1e-5)


@pytest.mark.parametrize("stepper", [ddim(), heun()], ids=["ddim", "heun"])
def test_a_step_to_no_noise_gives_the_denoised(stepper):
    path = paths.Path(lambda t: 1 - jnp.asarray(t), jnp.asarray, 0.0, 1.0)
    x = jax.random.normal(KEY, (5, 2))
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    chex.assert_trees_all_close(stepper.step(denoise, path, KEY, State(x), 0.6, 0.0).x, denoise(x, 0.6), rtol=1e-5)


@every_path
@pytest.mark.parametrize("stepper", [ddpm(), ddim(eta=0.5)], ids=["ddpm", "ddim_half"])
def test_stochastic_samples_have_the_moments_of_the_data(path, stepper):
    num = 20_000
    x = path.sigma(path.t_max) * jax.random.normal(KEY, (num, 2))
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    grid = paths.log_snr_grid(path, 400)
    x = jax.jit(lambda x: integrate(stepper, denoise, path, jax.random.key(1), x, grid))(x)
    standard_error = np.sqrt(VARIANCE / num)
    np.testing.assert_array_less(abs(x.mean(0) - MEAN), 4 * standard_error + 0.01)
    np.testing.assert_allclose(x.var(0), VARIANCE, rtol=0.04)


def test_ancestral_sampling_is_ddim_with_all_noise_fresh():
    path, x = paths.cosine(), jax.random.normal(KEY, (7, 2))
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    one = ddpm().step(denoise, path, KEY, State(x), 0.7, 0.5).x
    other = ddim(eta=1.0).step(denoise, path, KEY, State(x), 0.7, 0.5).x
    chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-6)


@every_stepper
def test_samples_of_a_mixture(stepper):
    """The mean log-density of samples against minus the entropy, by sampling the mixture itself."""
    target, path = mixture(), paths.cosine()
    denoise = lambda x, t: paths.SCORE.to_x0(path, x, t, score(target, path)(x, t))  # noqa: E731
    x = path.sigma(path.t_max) * jax.random.normal(KEY, (4000, 2))
    grid = paths.uniform_grid(path, 200)
    x = jax.jit(lambda x: integrate(stepper, denoise, path, jax.random.key(1), x, grid))(x)
    ours, theirs = log_prob(target, x), log_prob(target, sample(target, 0, 100_000))
    assert abs(ours.mean() - theirs.mean()) < 4 * ours.std() / np.sqrt(4000) + 0.01


@every_stepper
def test_number_of_evaluations(stepper):
    """Calls that really happen, counted on the host."""
    path, calls = paths.cosine(), []

    def denoise(x, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return 0.5 * x

    jax.block_until_ready(
        jax.jit(lambda x: integrate(stepper, denoise, path, KEY, x, paths.uniform_grid(path, 6)))(jnp.ones((2, 2)))
    )
    jax.effects_barrier()
    assert len(calls) == 6 * stepper.num_evaluations


@every_stepper
def test_other_times_and_labels_do_not_recompile(stepper):
    """One trace for every grid of one length, and a program that does not grow with the number of steps."""
    path, traces = paths.cosine(), []

    @jax.jit
    def run(x, grid, label, key):
        traces.append(1)
        return integrate(stepper, lambda x, t: 0.5 * x + label[:, None], path, key, x, grid)

    x, label = jnp.ones((2, 2)), jnp.zeros(2)
    first = run(x, paths.uniform_grid(path, 8), label, KEY)
    second = run(x, paths.karras_grid(path, 8), label + 1, jax.random.key(1))
    assert len(traces) == 1
    assert not np.allclose(first, second)
    program = lambda num: str(jax.make_jaxpr(run)(x, paths.uniform_grid(path, num), label, KEY))  # noqa: E731
    assert program(500).count("=") == program(8).count("=")


@every_stepper
def test_trajectory_ends_where_the_sample_is(stepper):
    path, x = paths.cosine(), jax.random.normal(KEY, (3, 2))
    grid, denoise = paths.uniform_grid(path, 5), gaussian_denoiser(path, MEAN, VARIANCE)
    visited = trajectory(stepper, denoise, path, KEY, x, grid)
    chex.assert_shape(visited, (5, 3, 2))
    chex.assert_trees_all_close(visited[-1], integrate(stepper, denoise, path, KEY, x, grid), rtol=1e-6)
    halfway = integrate(stepper, denoise, path, KEY, x, grid[:2])
    if stepper in (STEPPERS["ddim"], STEPPERS["heun"]):
        chex.assert_trees_all_close(visited[0], halfway, rtol=1e-6)


def test_fresh_noise_at_every_step():
    """The noise a stochastic stepper adds is uncorrelated from step to step."""
    path, x = paths.cosine(), jnp.zeros((10_000, 1))
    visited = trajectory(ddpm(), lambda x, t: jnp.zeros_like(x), path, KEY, x, jnp.array([0.9, 0.8, 0.7]))
    share = paths.posterior(path, x, 0.8, 0.7, x)
    kept = visited[0] * (path.sigma(0.7) / path.sigma(0.8)) ** 2 * path.alpha(0.8) / path.alpha(0.7)
    fresh = (visited[1] - kept) / share[1]
    assert abs(jnp.corrcoef(visited[0][:, 0], fresh[:, 0])[0, 1]) < 4e-2
    np.testing.assert_allclose(fresh.std(), 1, rtol=0.03)


def test_a_stepper_with_memory():
    """The loop carries memory: a stepper that counts its steps."""

    def step(denoise, path, key, state, t, s):
        del denoise, path, key, t, s
        return State(state.x + state.memory, state.memory + 1)

    counter = Stepper(lambda x: jnp.zeros(()), step, 0)
    found = integrate(counter, lambda x, t: x, paths.cosine(), KEY, jnp.zeros((1, 1)), jnp.linspace(1, 0, 5))
    assert found == 0 + 1 + 2 + 3
