"""Consistency models: exact ones in the place of networks, the times they compare, and training on small data."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import special

from jaxgen import paths
from jaxgen.core import train_step
from jaxgen.models.diffusion.consistency import (
    consistency,
    consistency_function,
    pseudo_huber_distance,
    squared_distance,
)
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.nets.time import TimeMLP
from jaxgen.samplers.ddim import ddim
from jaxgen.samplers.dpm_solver import dpm_solver_2m, dpm_solver_2s, dpm_solver_3m
from jaxgen.samplers.euler import euler
from jaxgen.samplers.generate import generate
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import State, memoryless
from jaxgen.samplers.renoise import keeping, renoise, single_step
from jaxgen.samplers.unipc import unipc
from jaxgen.teaching import starting_from, with_teacher
from jaxgen.types import Batch
from tests.analytic import gaussian_denoiser, gaussian_flow
from tests.training import fit, start

KEY = jax.random.key(0)
MEAN, VARIANCE = jnp.array([0.4, -0.3]), jnp.array([0.25, 1.5])
PATHS = {"karras": paths.karras(), "cosine": paths.cosine(), "linear": paths.linear()}
KEEPING = paths.preconditioned(keep_t_min=True)
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def end_of_flow(path, x_t, t):
    """The consistency function of the Gaussian in closed form."""
    return gaussian_flow(path, MEAN, VARIANCE, x_t, t, path.t_min) / path.alpha(path.t_min)


def exact(path, parametrization):
    """A network that is that function, or the denoiser of the Gaussian, as the parametrisation wants it."""

    class Exact(nn.Module):
        of: object

        @nn.compact
        def __call__(self, x, level, cond=None):
            del cond
            t = paths.time_of_log_snr(path, -8 * level)
            x_t = x / parametrization.scale(path, t, x)
            return parametrization.from_x0(path, x_t, t, self.of(x_t, t[:, None]))

    return Exact


def gaussian_teacher(path):
    """A model whose score is the Gaussian's."""
    view = paths.preconditioned()
    return diffusion(exact(path, view)(gaussian_denoiser(path, MEAN, VARIANCE)), (2,), path=path, parametrization=view)


def data(key, num=256):
    return Batch(MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(key, (num, 2)))


def closed_form_step():
    """A stepper that moves along the Gaussian's flow without any error."""
    return memoryless(
        lambda denoise, path, key, x, t, s: gaussian_flow(path, MEAN, VARIANCE, x, t, s), num_evaluations=0
    )


def distillation_losses(path, stepper, *counts, **options):
    """Losses of the exact function, by how many intervals the grid of times has."""
    net, pairs = exact(path, KEEPING)(lambda x_t, t: end_of_flow(path, x_t, t)), paths.uniform_pairs(lambda step: step)
    teaching = {"teacher": gaussian_teacher(path), "teacher_stepper": stepper}
    model = consistency(net, (2,), path=path, pairs=pairs, **teaching, **options)
    loss = jax.jit(lambda num: model.loss({}, {"step": num, "teacher": {}}, KEY, data(KEY))[0])
    return [float(loss(jnp.asarray(num))) for num in counts]


@every_path
def test_distillation_of_the_exact_function(path):
    """The loss vanishes when the teacher's step is exact, and with Heun's step falls as the times come together."""
    squared = {"distance": squared_distance, "weight": lambda path, t, s: jnp.ones_like(t)}
    errors = lambda stepper, *counts: np.sqrt(distillation_losses(path, stepper, *counts, **squared))  # noqa: E731
    assert errors(closed_form_step(), 20)[0] < 2e-5
    few, many = errors(heun(), 20, 80)
    assert many < few / 16 + 1e-5  # the error of one step of a method of second order, h^3


@every_path
def test_the_default_loss_of_the_exact_function_is_zero(path):
    """Pseudo-Huber distance and inverse-gap weight, where one step of Heun's method leaves more than 1e-3."""
    (exactly,), (by_heun,) = (distillation_losses(path, stepper, 20) for stepper in (closed_form_step(), heun()))
    assert exactly < 1e-7
    assert by_heun > 1e-3


ONE_MEAN, ONE_VARIANCE = 0.4, 0.25


def family(path):
    """Networks with the exact function of N(0.4, 0.25) at theta = 0, and polynomials beside it."""
    end = lambda x_t, t: gaussian_flow(path, ONE_MEAN, ONE_VARIANCE, x_t, t, path.t_min) / path.alpha(path.t_min)  # noqa: E731

    class Family(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            theta = self.param("theta", nn.initializers.zeros, (3, 1))
            return exact(path, KEEPING)(end)(x, level) + jnp.concatenate([jnp.ones_like(x), x, x**3], -1) @ theta

    return Family()


def halving(path, key, num, step):
    """The noise level 0.8 and a lower one, closer at every step."""
    del key
    at = lambda noise: jnp.broadcast_to(paths.time_of_log_snr(path, -2 * jnp.log(noise)), (num,))  # noqa: E731
    return at(jnp.float32(0.8)), at(0.8 * (1 - 0.125 * 0.5**step))


def tuning(path, key, num, step):
    """The pair of easy consistency tuning that one example gets, for all of them, from the third stage on."""
    t, s = paths.tuning_pairs(1)(path, key, 1, step + 2)
    return jnp.broadcast_to(t, (num,)), jnp.broadcast_to(s, (num,))


def gradients(monkeypatch, path, pairs, distance, weight, *, theta=0.0):
    """Gradients `[3, 3]` of the loss at three steps, in expectation over data and noise: by Gauss-Hermite."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(12)
    z, eps = (jnp.float32(grid.reshape(-1, 1)) for grid in np.meshgrid(nodes, nodes))
    mass, normal = np.outer(masses, masses).ravel() / masses.mean() ** 2, jax.random.normal
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: eps if shape == eps.shape else normal(key, shape))
    weighted = lambda path, t, s: mass * weight(path, t, s)  # noqa: E731
    model = consistency(family(path), (1,), path=path, pairs=pairs, distance=distance, weight=weighted)
    batch, params = Batch(ONE_MEAN + np.sqrt(ONE_VARIANCE) * z), {"theta": jnp.full((3, 1), theta)}
    gradient = jax.jit(jax.grad(lambda params, step: model.loss(params, {"step": step}, KEY, batch)[0]))
    found = [gradient(params, jnp.asarray(step))["theta"][:, 0] for step in range(3)]
    monkeypatch.setattr(jax.random, "normal", normal)
    return np.float64(found)


def gradient_of_the_exact_function(path, t, s):
    """In closed form, of squared distances: 2 E[df/dtheta (f(x_t, t) - E[f(x_s, s) | x_t])].

    The exact function is m + c z_t, with z_t = (x_t - alpha m) / spread(t) and c the spread of the end. Given x_t the
    mean of z_s is rho z_t, with rho the correlation of x_t and x_s: the cosine of the difference of two angles.
    """
    (alpha, sigma), (alpha_s, sigma_s), (alpha_0, sigma_0) = (
        np.float64([path.alpha(time), path.sigma(time)]) for time in (t, s, path.t_min)
    )
    spread = lambda alpha, sigma: np.sqrt(alpha**2 * ONE_VARIANCE + sigma**2)  # noqa: E731
    rho = (alpha * alpha_s * ONE_VARIANCE + sigma * sigma_s) / spread(alpha, sigma) / spread(alpha_s, sigma_s)
    z, masses = np.polynomial.hermite_e.hermegauss(12)
    scale = np.sqrt(0.25 * alpha**2 + sigma**2)
    y = (alpha * ONE_MEAN + spread(alpha, sigma) * z) / scale
    c_out = 0.5 * (sigma - alpha * sigma_0 / alpha_0) / scale
    residual = spread(alpha_0, sigma_0) / alpha_0 * (1 - rho) * z
    return 2 * c_out * np.stack([np.ones_like(y), y, y**3]) @ (masses / masses.sum() * residual)


def three_pairs(path, pairs):
    """Times (t, s) of the three steps, and angles arctan(sigma / (alpha spread of the data)) between them."""
    times = [[float(time[0]) for time in pairs(path, jax.random.split(KEY)[0], 1, jnp.asarray(i))] for i in range(3)]
    angle = lambda t: np.arctan2(float(path.sigma(t)), float(path.alpha(t)) * np.sqrt(ONE_VARIANCE))  # noqa: E731
    return times, np.array([angle(t) - angle(s) for t, s in times])


@every_path
@pytest.mark.parametrize("pairs", [halving, tuning])
def test_training_leaves_the_exact_function_as_times_come_together(monkeypatch, path, pairs):
    """Its gradient is the closed form, of second order in the gap, where that of another function is of first."""
    times, gaps = three_pairs(path, pairs)
    one = lambda path, t, s: jnp.ones_like(t)  # noqa: E731
    found = gradients(monkeypatch, path, pairs, squared_distance, one)
    other = gradients(monkeypatch, path, pairs, squared_distance, one, theta=0.3)
    expected = [gradient_of_the_exact_function(path, t, s) for t, s in times]
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-7)
    rates, other_rates = (np.linalg.norm(each, axis=1) / gaps for each in (found, other))
    np.testing.assert_allclose(rates[1:] / rates[:-1], gaps[1:] / gaps[:-1], rtol=0.02)
    assert (gaps[1:] / gaps[:-1] < 0.55).all()
    assert (other_rates[1:] / other_rates[:-1] > 0.7).all()


@every_path
@pytest.mark.parametrize("pairs", [halving, tuning])
def test_so_do_the_distance_and_the_weight_that_are_the_default(monkeypatch, path, pairs):
    """sqrt(d^2 + c^2) - c is d^2 / (2 c) for small d, and the weight is one over the gap of noise levels."""
    times, _ = three_pairs(path, pairs)
    found = gradients(monkeypatch, path, pairs, pseudo_huber_distance(scale=1.0), paths.inverse_gap_weight)
    gaps = [2 * (level(path, t) - level(path, s)) for t, s in times]
    expected = [gradient_of_the_exact_function(path, t, s) / gap for (t, s), gap in zip(times, gaps, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-6)


@every_path
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4])
def test_every_number_of_steps_draws_the_gaussian(path, num_steps):
    """Moments of samples of the exact function, and one step against the closed form."""
    net = exact(path, KEEPING)(lambda x_t, t: end_of_flow(path, x_t, t))
    latent = jax.random.normal(KEY, (50, 2))
    model = consistency(net, (2,), path=path, num_steps=num_steps)
    x_max = path.sigma(path.t_max) * latent
    chex.assert_trees_all_close(
        jax.jit(model.decode)({}, latent), end_of_flow(path, x_max, path.t_max), rtol=1e-3, atol=1e-4
    )
    x = jax.jit(lambda: model.sample({}, KEY, 20_000))()
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.04)
    np.testing.assert_allclose(x.var(0), VARIANCE, rtol=0.05)


@every_path
def test_the_end_of_the_path_is_kept(path):
    """Whatever the network says, f(x, t_min) = x / alpha, and c_skip and c_out are the source's for alpha = 1."""
    x, out = jax.random.normal(KEY, (2, 5, 2))
    ends = KEEPING.to_x0(path, x, path.t_min, 100 * out)
    chex.assert_trees_all_close(ends, x / path.alpha(path.t_min), rtol=1e-5, atol=1e-4)
    if path.alpha(0.5) == 1:
        t, low, s = 1.7, path.t_min, 0.5
        expected = s**2 / ((t - low) ** 2 + s**2) * x + s * (t - low) / np.sqrt(s**2 + t**2) * out
        chex.assert_trees_all_close(KEEPING.to_x0(path, x, t, out), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "stepper",
    [ddim(), euler(), heun(), dpm_solver_2s(), dpm_solver_2m(), dpm_solver_3m(), unipc()],
    ids=["ddim", "euler", "heun", "dpm_solver_2s", "dpm_solver_2m", "dpm_solver_3m", "unipc"],
)
def test_single_steps_have_intervals_of_their_own(stepper):
    """Each example against the stepper on that example alone."""
    path, x = paths.cosine(), jax.random.normal(KEY, (3, 2))
    t, s = jnp.array([0.9, 0.5, 0.2]), jnp.array([0.6, 0.4, 0.001])
    denoise = gaussian_denoiser(path, MEAN, VARIANCE)
    found = jax.jit(lambda: single_step(stepper, lambda x, t, cond: denoise(x, t), path, x, t, s))()
    for i in range(3):
        state = State(x[i : i + 1], stepper.init(x[i : i + 1]))
        alone = stepper.step(denoise, path, KEY, state, t[i], s[i]).x
        chex.assert_trees_all_close(found[i : i + 1], alone, rtol=1e-5, atol=1e-6)


def level(path, t):
    return np.exp(-0.5 * np.asarray(paths.log_snr(path, t), np.float64))


@pytest.mark.parametrize("path", [paths.karras(), paths.cosine()], ids=["karras", "cosine"])
def test_log_normal_pairs_have_the_sources_probabilities(path):
    """Frequencies of the grid's intervals against differences of the error function, and its edges by its formula."""
    num, total = 12, 100_000
    t, s = jax.jit(lambda: paths.log_normal_pairs(num)(path, KEY, total, jnp.zeros((), jnp.int32)))()
    low, high = level(path, path.t_min), level(path, path.t_max)
    edges = (low ** (1 / 7) + np.arange(num + 1) / num * (high ** (1 / 7) - low ** (1 / 7))) ** 7
    index = np.rint(np.interp(level(path, s) ** (1 / 7), edges ** (1 / 7), np.arange(num + 1))).astype(int)
    np.testing.assert_allclose(level(path, s), edges[index], rtol=1e-3)
    np.testing.assert_allclose(level(path, t), edges[index + 1], rtol=1e-3)
    share = np.diff(special.erf((np.log(edges) + 1.1) / (np.sqrt(2) * 2.0)))
    expected = total * share / share.sum()
    found = np.bincount(index, minlength=num)
    np.testing.assert_array_less(abs(found - expected), 5 * np.sqrt(expected) + 1)


def test_uniform_pairs_take_every_interval():
    path = paths.karras()
    t, s = jax.jit(lambda: paths.uniform_pairs(18)(path, KEY, 18_000, jnp.asarray(0)))()
    levels, counts = np.unique(np.asarray(s), return_counts=True)
    chex.assert_trees_all_close(levels[::-1], np.asarray(paths.karras_grid(path, 18))[1:], rtol=1e-4)
    np.testing.assert_array_less(abs(counts - 1000), 160)
    assert (t > s).all()


def test_the_curriculum_doubles():
    """Against the source's formula, written out; 8 stages of equal length."""
    count = paths.doubling(4000)
    for step in (0, 499, 500, 999, 1500, 3499, 3500, 3999, 5000):
        expected = min(10 * 2 ** (step // (4000 // (int(np.log2(1280 / 10)) + 1))), 1280)
        assert count(jnp.asarray(step)) == expected


def test_tuning_pairs_close_the_gap():
    """Against the source's mapping, by noise level, in three stages; the first begins at the data."""
    path = paths.karras()
    draw = jax.jit(lambda step: paths.tuning_pairs(10)(path, KEY, 500, step))
    for stage in range(3):
        t, s = draw(jnp.asarray(10 * stage + 9))
        n = np.asarray(t, np.float64)
        expected = n * np.maximum(1 - (1 + 8 / (1 + np.exp(n))) / 2.0 ** (stage + 1), 0)
        np.testing.assert_allclose(s, np.maximum(expected, path.t_min), rtol=1e-3)
    np.testing.assert_allclose(draw(jnp.asarray(0))[1][t < 1], path.t_min, rtol=1e-5)


def test_weights_and_distance():
    path, t, s = paths.karras(), jnp.array([1.0, 2.0]), jnp.array([0.5, 0.25])
    np.testing.assert_allclose(paths.inverse_gap_weight(path, t, s), 1 / (t - s), rtol=1e-5)
    np.testing.assert_allclose(paths.inverse_variance_weight()(path, t, s), (t**2 + 0.25) / (0.5 * t) ** 2, rtol=1e-5)
    a, b = jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.zeros((2, 2))
    np.testing.assert_allclose(pseudo_huber_distance(scale=0.5)(a, b), [np.sqrt(25.25) - 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(squared_distance(a, b), [12.5, 0])


def test_the_scale_of_the_distance_is_the_sources():
    """c = 0.00054 sqrt(D): two points at the distance c are sqrt(2) c - c apart, in the 48 dimensions of an image."""
    scale = 0.00054 * np.sqrt(48)
    a = scale * jax.random.normal(KEY, (5, 4, 4, 3))
    a, b = a * scale / jnp.sqrt((a**2).sum((1, 2, 3), keepdims=True)), jnp.zeros((5, 4, 4, 3))
    np.testing.assert_allclose(pseudo_huber_distance()(a, b), np.full(5, (np.sqrt(2) - 1) * scale), rtol=1e-5)


def test_what_is_known_is_kept():
    """A Gaussian of which one coordinate is known; the mean of the other against the recursion that it obeys.

    In the axes of the Gaussian the exact function multiplies by g_i = sqrt((v_i + n_0^2) / (v_i + n^2)); so with
    a = (g_1 - g_2) / 2 and b = (g_1 + g_2) / 2 the mean of the free coordinate goes from m to a x + b m.
    """
    path, axes, variance = paths.karras(), jnp.array([[1.0, 1.0], [1.0, -1.0]]) / jnp.sqrt(2), np.array([1.9, 0.1])
    grid = paths.karras_grid(path, 40)

    def f(x_t, t):
        return gaussian_flow(path, 0.0, jnp.asarray(variance), x_t @ axes, t, path.t_min) @ axes

    known = jnp.stack([jnp.linspace(-2, 2, 4000), jnp.full(4000, jnp.nan)], -1)
    kept = keeping(f, known, jnp.array([True, False]))
    x = jax.jit(lambda: generate(renoise(), kept, path, KEY, known.shape, grid))()
    expected = 0.0
    for n in np.asarray(grid, np.float64)[1:-1]:
        g = np.sqrt((variance + path.t_min**2) / (variance + n**2))
        expected = (g[0] - g[1]) / 2 + (g[0] + g[1]) / 2 * expected
    chex.assert_trees_all_equal(x[:, 0], known[:, 0])
    slope, offset = np.polyfit(known[:, 0], x[:, 1], 1)
    np.testing.assert_allclose([slope, offset], [expected, 0], atol=0.03)
    assert expected > 0.7  # the conditional mean's slope is 0.9


def distance_to_the_closed_form(model, params, path):
    """Root mean square distance of one-step samples from the ends of the Gaussian's flow, same latents."""
    latent = jax.random.normal(jax.random.key(9), (1000, 2))
    ends = end_of_flow(path, path.sigma(path.t_max) * latent, path.t_max)
    return float(jnp.sqrt(((jax.jit(model.decode)(params, latent) - ends) ** 2).sum(-1).mean()))


TRAININGS = {
    "improved": {"pairs": paths.log_normal_pairs(paths.doubling(800, first=10, last=80))},
    "moving_average": {
        "pairs": paths.uniform_pairs(40),
        "distance": squared_distance,
        "weight": lambda path, t, s: jnp.ones_like(t),
        "target_decay": 0.9,
    },
    "distilled": {"pairs": paths.uniform_pairs(40), "teacher": gaussian_teacher(paths.karras())},
}


@pytest.mark.parametrize("options", TRAININGS.values(), ids=TRAININGS.keys())
def test_training_reaches_the_closed_form(options):
    """800 steps from scratch; the data's own spread is 1.3."""
    model = consistency(TimeMLP((64, 64)), (2,), **options)
    tx = optax.adam(optax.cosine_decay_schedule(3e-3, 800))
    state = fit(model, tx, data, start(model, tx, data), 800)
    found = distance_to_the_closed_form(model, state.ema_params, paths.karras())
    assert found < 0.2
    assert state.carry["step"] == 800


def test_tuning_starts_from_a_diffusion_model():
    """A diffusion model's parameters are a first consistency function, which tuning brings to the closed form."""
    path, tx = paths.karras(), optax.adam(optax.cosine_decay_schedule(3e-3, 600))
    options, noise = {"path": path, "parametrization": KEEPING}, {"mean": 0.0, "scale": 1.6}
    before = diffusion(TimeMLP((64, 64)), (2,), times=paths.log_normal_times(**noise), **options)
    pretrained = fit(before, tx, data, start(before, tx, data), 600).ema_params
    model = consistency(TimeMLP((64, 64)), (2,), pairs=paths.tuning_pairs(200, q=4.0, **noise), **options)
    state = starting_from(start(model, tx, data), pretrained)
    chex.assert_trees_all_equal(state.params, pretrained)
    first = distance_to_the_closed_form(model, state.params, path)
    last = distance_to_the_closed_form(model, fit(model, tx, data, state, 600).ema_params, path)
    assert last < 0.25 < 1.0 < first


def test_the_target_is_the_moving_average_of_the_parameters():
    """The recursion by hand, advanced at the start of the loss, from the parameters it is handed."""
    model = consistency(TimeMLP((4,)), (2,), target_decay=0.8)
    tx = optax.sgd(0.1)
    state, step = start(model, tx, data), jax.jit(train_step(model, tx))
    expected = state.params
    for _ in range(3):
        expected = jax.tree.map(lambda e, p: 0.8 * e + 0.2 * p, expected, state.params)
        state = step(state, data(KEY))[0]
    chex.assert_trees_all_close(state.carry["target"], expected, rtol=1e-5)


def test_the_teacher_is_an_argument_of_the_step():
    """Another teacher in the carry changes the loss of the same compiled function, and no step changes it."""
    teacher = diffusion(TimeMLP((4,)), (2,), path=paths.karras())
    model, tx = consistency(TimeMLP((4,)), (2,), teacher=teacher), optax.sgd(0.1)
    state = start(model, tx, data)
    other = with_teacher(state, jax.tree.map(lambda leaf: leaf + 1, state.carry["teacher"]))
    step = jax.jit(train_step(model, tx))
    after, after_other = step(state, data(KEY)), step(other, data(KEY))
    assert after[1]["loss"] != after_other[1]["loss"]
    assert step._cache_size() == 1
    chex.assert_trees_all_equal(after_other[0].carry["teacher"], other.carry["teacher"])


def test_function_is_the_models():
    net, path = TimeMLP((4,)), paths.karras()
    model = consistency(net, (2,))
    params, latent = start(model, optax.sgd(0.1), data).params, jax.random.normal(KEY, (3, 2))
    f = consistency_function(net, path, KEEPING)(params)
    chex.assert_trees_all_close(f(80 * latent, 80.0), model.decode(params, latent))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"parametrization": paths.X0}, "differ by 2"),
        ({"num_steps": 0}, "got 0"),
        ({"target_decay": 1.0}, r"got 1 and 1\.0"),
        ({"grid": lambda path, num_steps: jnp.array([0.1, 0.7])}, r"grid of falling times, got \[0\.1 0\.7\]"),
        ({"teacher": gaussian_teacher(paths.karras())._replace(score=None)}, "score"),
    ],
)
def test_arguments_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        consistency(TimeMLP((4,)), (2,), **options)


def test_numbers_are_checked():
    for build in (
        lambda: paths.uniform_pairs(0),
        lambda: paths.log_normal_pairs(0),
        lambda: paths.doubling(3),
        lambda: paths.doubling(10, first=4, last=2),
        lambda: paths.tuning_pairs(0),
        lambda: pseudo_huber_distance(scale=0.0),
    ):
        with pytest.raises(ValueError, match="got"):
            build()
