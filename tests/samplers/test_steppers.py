"""Steppers on Gaussians and mixtures whose denoiser is exact; one loop, counted and compiled once."""

import functools
import importlib
import itertools
import pkgutil
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxgen import paths, samplers
from jaxgen.samplers import multistep
from jaxgen.samplers.churn import churned
from jaxgen.samplers.ddim import ddim
from jaxgen.samplers.ddpm import ddpm
from jaxgen.samplers.dpm_solver import dpm_solver_2m, dpm_solver_2s, dpm_solver_3m, dpm_solver_sde_2m
from jaxgen.samplers.euler import euler
from jaxgen.samplers.euler_maruyama import euler_maruyama
from jaxgen.samplers.heun import edm_heun, heun
from jaxgen.samplers.loop import State, Stepper, integrate, trajectory
from jaxgen.samplers.moves import follow
from jaxgen.samplers.predictor_corrector import predictor_corrector
from jaxgen.samplers.unipc import unipc
from tests.analytic import gaussian_denoiser, gaussian_flow, log_prob, mixture, sample, score

PATHS = {
    "variance_preserving": paths.variance_preserving(),
    "cosine": paths.cosine(),
    "variance_exploding": paths.variance_exploding(),
    "sub_variance_preserving": paths.sub_variance_preserving(),
}
DETERMINISTIC = {
    "ddim": (ddim(), 1, 128),
    "euler": (euler(), 1, 256),
    "heun": (heun(), 2, 128),
    "dpm_solver_2s": (dpm_solver_2s(), 2, 128),
    "dpm_solver_2m": (dpm_solver_2m(), 2, 128),
    "dpm_solver_3m": (dpm_solver_3m(), 3, 64),
    "unipc": (unipc(), 3, 128),
}
"""Stepper, order, and the number of steps up to which an error is looked at: more where it settles into its order late,
fewer where it falls below the rounding of float32."""

STOCHASTIC = {
    "ddpm": ddpm(),
    "ddim_half": ddim(eta=0.5),
    "euler_maruyama": euler_maruyama(),
    "dpm_solver_sde_2m": dpm_solver_sde_2m(),
    "edm_heun": edm_heun(churn=0.1),
    "predictor_corrector": predictor_corrector(ddim()),
}
STEPPERS = STOCHASTIC | {name: stepper for name, (stepper, _, _) in DETERMINISTIC.items()}
MEAN, VARIANCE = jnp.array([0.5, -1.0]), jnp.array([0.25, 2.0])
KEY = jax.random.key(0)
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
every_stepper = pytest.mark.parametrize("stepper", STEPPERS.values(), ids=STEPPERS.keys())
every_stochastic = pytest.mark.parametrize("stepper", STOCHASTIC.values(), ids=STOCHASTIC.keys())
every_deterministic = pytest.mark.parametrize("name", DETERMINISTIC)


def walk(stepper, denoise, path, x, *grids):
    """`integrate` over each grid as a loop in Python, so that grids of every length share one compiled step."""
    step, ends = jax.jit(lambda state, t, s: stepper.step(denoise, path, KEY, state, t, s)), []
    for grid in grids:
        state = State(x, stepper.init(x))
        for t, s in zip(grid[:-1], grid[1:], strict=True):
            state = step(state, t, s)
        ends.append(state.x)
    return ends


@functools.cache
def fine_grid(path):
    return np.asarray(paths.log_snr_grid(path, 256))


def nested_grids(path, finest):
    """Falling grids of a quarter of `finest` steps, half and all of them, evenly spaced in log-SNR."""
    return [fine_grid(path)[:: 256 // num] for num in (finest // 4, finest // 2, finest)]


def fitted_order(found, exact):
    """The slope of the largest error over the number of steps, which doubles, in logarithms."""
    errors = [abs(x - exact).max() for x in found]
    return -np.polyfit(range(len(errors)), np.log2(errors), 1)[0], errors


@every_path
@every_deterministic
def test_order_of_convergence_in_both_directions(path, name):
    """Against the closed-form flow of a Gaussian, from noise to data and from data to noise.

    On a Gaussian 3M is of order 4: with u half the log-SNR and D(u) the denoised along the flow, an error at u arrives
    with weight D(u), so that the coefficient of h^3 is a multiple of int D''' D du = 0. UniPC has other such terms.
    From data to noise 3M comes to that order later than down, and is at 3.6 to 3.7 where float32 ends.
    """
    stepper, order, finest = DETERMINISTIC[name]
    order_here = 4 if name == "dpm_solver_3m" else order
    noise, denoise = jax.random.normal(KEY, (64, 2)), gaussian_denoiser(path, MEAN, VARIANCE)
    down, ends = nested_grids(path, finest), (path.t_max, path.t_min)
    x = path.sigma(path.t_max) * noise
    exact = gaussian_flow(path, MEAN, VARIANCE, x, *ends)
    slope, found = fitted_order(walk(stepper, denoise, path, x, *down), exact)
    assert abs(slope - order_here) < 0.25, (slope, found)
    encoded = walk(stepper, denoise, path, exact, *[grid[::-1] for grid in down])
    slope, found = fitted_order(encoded, x)
    assert abs(slope - order_here) < (0.5 if name == "dpm_solver_3m" else 0.25), (slope, found)


def mixture_flow(target, x, t_max, t_min):
    """The flow of a mixture on the linear path, dx/dt = eps - x0, by scipy in double precision."""

    def field(t, flat):
        x, spread = flat.reshape(-1, 2), (1 - t) ** 2 * target.scales**2 + t**2
        apart = x[:, None] - (1 - t) * target.means
        weight = target.weights / spread * np.exp(-0.5 * (apart**2).sum(-1) / spread)
        weight /= weight.sum(1, keepdims=True)
        x0 = (weight[..., None] * (target.means + ((1 - t) * target.scales**2 / spread)[:, None] * apart)).sum(1)
        return ((x - x0) / t).ravel()

    solution = solve_ivp(field, (t_max, t_min), np.ravel(x).astype(float), method="DOP853", rtol=1e-10, atol=1e-10)
    return solution.y[:, -1].reshape(-1, 2)


def mixture_orders(stepper, finest):
    """Fitted orders from noise to data, and from where the flow ends there back to the noise."""
    target, path = mixture(), paths.linear(margin=0.02)
    x, down = path.sigma(path.t_max) * jax.random.normal(KEY, (16, 2)), nested_grids(path, finest)
    denoise = lambda x, t: paths.SCORE.to_x0(path, x, t, score(target, path)(x, t))  # noqa: E731
    exact = mixture_flow(target, x, path.t_max, path.t_min)
    encoded = walk(stepper, denoise, path, jnp.asarray(exact, jnp.float32), *[grid[::-1] for grid in down])
    return fitted_order(walk(stepper, denoise, path, x, *down), exact), fitted_order(encoded, x)


@every_deterministic
def test_order_of_convergence_on_a_mixture_in_both_directions(name):
    """Against scipy's solution of the flow; here no terms cancel, and 3M is of order 3 upward too."""
    stepper, order, finest = DETERMINISTIC[name]
    for slope, found in mixture_orders(stepper, finest):
        assert abs(slope - order) < 0.25, (slope, found)


def test_half_the_bend_is_of_second_order():
    """3M as diffusers has it, halfway between the line with exact weights and the parabola."""

    def halved(h, x0, past):
        (newer, older), (gap, earlier_gap) = past
        parabola = multistep.parabola(h, x0, (-gap, newer), (-gap - earlier_gap, older))
        first, second = (x0 - newer) / gap, (newer - older) / earlier_gap
        bend = (first - second) / (gap + earlier_gap)
        phi = -jnp.expm1(-h)
        return parabola - 0.5 * bend * (h * h - 2 * h + 2 * phi) / phi

    for slope, found in mixture_orders(multistep.multistep(2, halved, follow), 64):
        assert abs(slope - 2) < 0.25, (slope, found)


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


def test_euler_is_ddim_on_the_straight_line():
    """Where alpha and sigma are straight lines in t the two methods are one; elsewhere they are not."""
    x, straight, bent = jax.random.normal(KEY, (5, 2)), paths.linear(), paths.cosine()

    def steps(path):
        denoise = gaussian_denoiser(path, MEAN, VARIANCE)
        return [method.step(denoise, path, KEY, State(x), 0.7, 0.5).x for method in (euler(), ddim())]

    chex.assert_trees_all_close(*steps(straight), rtol=1e-5)
    assert abs(jnp.subtract(*steps(bent))).max() > 1e-3


def test_heun_without_churn_is_heun():
    path, x = paths.karras(), jax.random.normal(KEY, (5, 2))
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    for stepper in (edm_heun(churn=0.0), edm_heun(churn=0.4, churn_min=3.0), edm_heun(churn=0.4, churn_max=1.0)):
        found, expected = (method.step(denoise, path, KEY, State(x), 2.0, 1.0).x for method in (stepper, heun()))
        chex.assert_trees_all_close(found, expected, rtol=1e-6)


@every_path
def test_churn_raises_the_noise_by_its_share(path):
    """Data at one point, and a stepper that goes nowhere: the mean and the variance of x at the later time."""
    still = Stepper(lambda x: (), lambda denoise, path, key, state, t, s: State(state.x / path.alpha(t)), 0)
    t, x0, churn = 0.5, 2.0, 0.3
    x = path.alpha(t) * x0 + path.sigma(t) * jax.random.normal(KEY, (100_000, 1))
    found = churned(still, churn=churn).step(lambda x, t: x, path, jax.random.key(1), State(x), t, t).x
    ratio = (1 + churn) * path.sigma(t) / path.alpha(t)
    np.testing.assert_allclose(found.mean(), x0, atol=4 * ratio / np.sqrt(1e5))
    np.testing.assert_allclose(found.std(), ratio, rtol=0.01)


@every_deterministic
def test_a_step_to_no_noise_gives_the_denoised(name):
    """The first step, and one after another; nothing is NaN."""
    stepper = DETERMINISTIC[name][0]
    path = paths.Path(lambda t: 1 - jnp.asarray(t), jnp.asarray, 0.0, 1.0)
    x = jax.random.normal(KEY, (5, 2))
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    first, last = walk(stepper, denoise, path, x, [0.6, 0.0], [0.9, 0.6, 0.3, 0.0])
    chex.assert_trees_all_close(first, denoise(x, 0.6), rtol=1e-5)
    chex.assert_tree_all_finite(last)


@pytest.mark.parametrize("name", STEPPERS)
def test_gradients_pass_a_step_to_no_noise(name):
    """The derivative of a sample by its start, which no infinite length may spoil, against differences."""
    path, denoise = paths.Path(lambda t: 1 - jnp.asarray(t), jnp.asarray, 0.0, 1.0), lambda x, t: jnp.sin(x) * t
    grid, x, step = jnp.array([0.9, 0.6, 0.3, 0.0]), jnp.array([[0.7]]), 0.01
    end = jax.jit(lambda x: integrate(STEPPERS[name], denoise, path, KEY, x, grid).sum())
    difference = (end(x + step) - end(x - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(end))(x), difference[None, None], rtol=1e-3)


@every_stochastic
def test_stochastic_steps_to_no_noise_add_none(stepper):
    path = paths.Path(lambda t: 1 - jnp.asarray(t), jnp.asarray, 0.0, 1.0)
    last = lambda x, t: jnp.full_like(x, 0.25)  # noqa: E731
    (x,) = walk(stepper, last, path, jax.random.normal(KEY, (5, 2)), [0.9, 0.6, 0.3, 0.0])
    chex.assert_trees_all_close(x, jnp.full((5, 2), 0.25), rtol=1e-5)


MOMENTS = {  # seconds each: where the clock is a linear beta, of the one that is told the SDE's g^2
    f"{path}-{stepper}": (PATHS[path], STOCHASTIC[stepper])
    for path, stepper in itertools.product(PATHS, STOCHASTIC)
    if path in ("cosine", "variance_exploding") or stepper == "euler_maruyama"
}


@pytest.mark.parametrize(("path", "stepper"), MOMENTS.values(), ids=MOMENTS)
def test_stochastic_samples_have_the_moments_of_the_data(path, stepper):
    have_the_moments_of_the_data(path, stepper)


def test_corrected_samples_of_a_stepper_with_memory_have_the_moments_of_the_data():
    have_the_moments_of_the_data(paths.cosine(), predictor_corrector(dpm_solver_2m()))


def have_the_moments_of_the_data(path, stepper):
    num = 20_000
    x = path.sigma(path.t_max) * jax.random.normal(KEY, (num, 2))
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    grid = paths.log_snr_grid(path, 400)
    x = jax.jit(lambda x: integrate(stepper, denoise, path, jax.random.key(1), x, grid))(x)
    standard_error = np.sqrt(VARIANCE / num)
    np.testing.assert_array_less(abs(x.mean(0) - MEAN), 4 * standard_error + 0.01)
    np.testing.assert_allclose(x.var(0), VARIANCE, rtol=0.04)


def test_langevin_corrections_alone_hold_the_marginal():
    """A predictor that stays, and 200 corrections of the wrong variance: that of x_t, up to the known bias r^2."""
    path, t, r = paths.cosine(), 0.6, 0.2
    still = Stepper(lambda x: (), lambda denoise, path, key, state, t, s: state, 0)
    stepper = predictor_corrector(still, signal_to_noise=r, num_corrections=200)
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    x = jax.jit(lambda x: stepper.step(denoise, path, KEY, State(x), t, t).x)(jnp.zeros((5000, 2)))
    variance = path.alpha(t) ** 2 * VARIANCE + path.sigma(t) ** 2
    biased = variance / (1 - (r * path.sigma(t)) ** 2 / variance)
    np.testing.assert_allclose(x.var(0), biased, rtol=4 * np.sqrt(2 / 5000))
    np.testing.assert_allclose(x.mean(0), path.alpha(t) * MEAN, atol=0.08)


@every_path
def test_first_steps_of_multistep_methods_are_of_first_order(path):
    """Of 2M, 3M and UniPC DDIM's, and of the stochastic 2M the ancestral one: against the source's two formulas, too.

    With h the change of lambda = ln(alpha / sigma), x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^-h) x0, and with noise
    z x_s = sigma_s / sigma_t e^-h x_t + alpha_s (1 - e^-2h) x0 + sigma_s sqrt(1 - e^-2h) z.
    """
    t, s, x = 0.7, 0.5, jax.random.normal(KEY, (7, 2))
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    first = lambda stepper: stepper.step(denoise, path, KEY, State(x, stepper.init(x)), t, s).x  # noqa: E731
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((float(path.alpha(u)), float(path.sigma(u))) for u in (t, s))
    x0, ratio, shrunk = np.asarray(denoise(x, t), float), sigma_s / sigma_t, alpha_t * sigma_s / (alpha_s * sigma_t)
    followed = ratio * x + alpha_s * (1 - shrunk) * x0
    z = np.asarray(jax.random.normal(KEY, x.shape), float)
    refreshed = ratio * shrunk * x + alpha_s * (1 - shrunk**2) * x0 + sigma_s * np.sqrt(1 - shrunk**2) * z
    for stepper in (ddim(), dpm_solver_2m(), dpm_solver_3m(), unipc()):
        np.testing.assert_allclose(first(stepper), followed, rtol=1e-5, atol=1e-5)
    for stepper in (ddpm(), dpm_solver_sde_2m()):
        np.testing.assert_allclose(first(stepper), refreshed, rtol=1e-5, atol=1e-5)


def test_ancestral_sampling_is_ddim_with_all_noise_fresh():
    path, x = paths.cosine(), jax.random.normal(KEY, (7, 2))
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    one = ddpm().step(denoise, path, KEY, State(x), 0.7, 0.5).x
    other = ddim(eta=1.0).step(denoise, path, KEY, State(x), 0.7, 0.5).x
    chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-6)


@every_stochastic
def test_samples_of_a_mixture(stepper):
    """The mean log-density of samples against minus the entropy, by sampling the mixture itself.

    Their mean, which is 0, and their covariance against the closed form.
    """
    target, path = mixture(), paths.cosine()
    denoise = lambda x, t: paths.SCORE.to_x0(path, x, t, score(target, path)(x, t))  # noqa: E731
    x = path.sigma(path.t_max) * jax.random.normal(KEY, (4000, 2))
    grid = paths.uniform_grid(path, 200)
    x = jax.jit(lambda x: integrate(stepper, denoise, path, jax.random.key(1), x, grid))(x)
    ours, theirs = log_prob(target, x), log_prob(target, sample(target, 0, 100_000))
    assert abs(ours.mean() - theirs.mean()) < 4 * ours.std() / np.sqrt(4000) + 0.01
    np.testing.assert_array_less(abs(x.mean(0)), 4 * x.std(0) / np.sqrt(4000))
    around = np.einsum("k,ki,kj->ij", target.weights, target.means, target.means)
    covariance = around + target.weights @ target.scales**2 * np.eye(2)
    products = x[:, :, None] * x[:, None]
    np.testing.assert_array_less(abs(products.mean(0) - covariance), 4 * products.std(0) / np.sqrt(4000))


def calls_in_six_steps(stepper):
    path, calls = paths.cosine(), []

    def denoise(x, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return 0.5 * x

    jax.block_until_ready(
        jax.jit(lambda x: integrate(stepper, denoise, path, KEY, x, paths.uniform_grid(path, 6)))(jnp.ones((2, 2)))
    )
    jax.effects_barrier()
    return len(calls)


@every_stepper
def test_number_of_evaluations(stepper):
    """Calls that really happen, counted on the host."""
    assert calls_in_six_steps(stepper) == 6 * stepper.num_evaluations


def test_every_correction_is_an_evaluation():
    """Two calls of the predictor and three corrections, in every step."""
    stepper = predictor_corrector(heun(), num_corrections=3)
    assert calls_in_six_steps(stepper) == 6 * stepper.num_evaluations == 6 * (2 + 3)


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


def test_strength_of_noise_is_traced():
    """Eta, churn and the signal-to-noise ratio may change without another trace."""
    path, traces, x = paths.cosine(), [], jnp.ones((2, 2))
    builders = (
        lambda value: ddim(eta=value),
        lambda value: edm_heun(churn=value),
        lambda value: predictor_corrector(ddim(), signal_to_noise=value),
    )

    @jax.jit
    def run(value):
        traces.append(1)
        grid = paths.uniform_grid(path, 3)
        return [integrate(build(value), lambda x, t: 0.5 * x, path, KEY, x, grid) for build in builders]

    for one, other in zip(run(0.1), run(0.3), strict=True):
        assert not np.allclose(one, other)
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["ddpm", "heun", "unipc"])
def test_trajectory_ends_where_the_sample_is(name):
    """A stochastic stepper, a deterministic one, and one with memory."""
    stepper, path, x = STEPPERS[name], paths.cosine(), jax.random.normal(KEY, (3, 2))
    grid, denoise = paths.uniform_grid(path, 5), gaussian_denoiser(path, MEAN, VARIANCE)
    visited = trajectory(stepper, denoise, path, KEY, x, grid)
    chex.assert_shape(visited, (5, 3, 2))
    chex.assert_trees_all_close(visited[-1], integrate(stepper, denoise, path, KEY, x, grid), rtol=1e-6)
    if name == "heun":
        chex.assert_trees_all_close(visited[0], integrate(stepper, denoise, path, KEY, x, grid[:2]), rtol=1e-6)


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


def test_a_negative_number_of_corrections_is_named():
    with pytest.raises(ValueError, match="-1"):
        predictor_corrector(ddim(), num_corrections=-1)


TABLE = re.findall(r"^\| `(\w+)\.(\w+)` \|[^|]*\|([^|]*)\|([^|]*)\|$", samplers.__doc__, re.MULTILINE)


@pytest.mark.parametrize(("module", "name", "order", "evaluations"), TABLE, ids=[row[1] for row in TABLE])
def test_the_table_says_orders_and_evaluations(module, name, order, evaluations):
    """Orders are those that are measured above; what wraps a stepper is asked with one of 2 evaluations."""
    arguments = {
        "edm_heun": lambda build: build(churn=0.1),
        "churned": lambda build: build(heun(), churn=0.1),
        "predictor_corrector": lambda build: build(heun(), num_corrections=3),
    }
    build = getattr(importlib.import_module(f"jaxgen.samplers.{module}"), name)
    stepper = arguments.get(name, lambda build: build())(build)
    in_words = {"its own": 2, "its own and the corrections": 2 + 3}
    assert stepper.num_evaluations == (in_words.get(evaluations.strip()) or int(evaluations))
    assert order.strip() == (str(DETERMINISTIC[name][1]) if name in DETERMINISTIC else "")


def test_the_table_has_every_stepper():
    """All that return a `Stepper`, but for the two functions that steppers are made with."""
    found = set()
    for module in pkgutil.iter_modules(samplers.__path__):
        names = importlib.import_module(f"jaxgen.samplers.{module.name}")
        public = {name: getattr(names, name) for name in names.__all__}
        found |= {
            (module.name, k) for k, f in public.items() if getattr(f, "__annotations__", {}).get("return") is Stepper
        }
    assert found - {("loop", "memoryless"), ("multistep", "multistep")} == {row[:2] for row in TABLE}
