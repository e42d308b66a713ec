"""Consistency models in continuous time: tangents of the exact function, and training on small data."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxgen import paths
from jaxgen.models.diffusion.continuous_consistency import continuous_consistency, log_weight, tangent
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.nets.time import TimeMLP, slow_features
from jaxgen.teaching import starting_from
from jaxgen.types import Batch
from tests.analytic import gaussian_denoiser
from tests.training import fit, start

KEY = jax.random.key(0)
MEAN, VARIANCE, SIGMA_DATA = jnp.array([0.2, -0.1]), jnp.array([0.1, 0.5]), 0.5
VIEW = paths.trigflow(sigma_data=SIGMA_DATA)
PATHS = {"cosine": paths.cosine(), "karras": paths.karras(), "linear": paths.linear()}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def end_of_flow(path, x_t, t):
    """The consistency function of the Gaussian in closed form, to no noise at all."""
    return MEAN + jnp.sqrt(VARIANCE / (path.alpha(t) ** 2 * VARIANCE + path.sigma(t) ** 2)) * (
        x_t - path.alpha(t) * MEAN
    )


def exact_network(y, angle):
    """F with (1) equal to `end_of_flow` on every path, without a difference of nearly equal numbers."""
    cos, sin = jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]
    std, spread = jnp.sqrt(VARIANCE), jnp.sqrt(VARIANCE * cos**2 + SIGMA_DATA**2 * sin**2)
    of_mean = SIGMA_DATA / (spread + cos * std)
    of_y = (VARIANCE * (1 + cos**2) - SIGMA_DATA**2 * cos**2) / (std + cos * spread)
    return sin / spread * (of_mean * MEAN + of_y * y)


def gaussian_teacher(path):
    """A model whose score is the Gaussian's, and which has no parameters."""

    def score(params, x, t, cond=None):
        del params, cond
        alpha, sigma = paths.scales(path, t, x)
        return -(x - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)

    return diffusion(TimeMLP((4,)), (2,), path=path)._replace(init=lambda key, batch: ({}, ()), score=score)


def points(path, num=64):
    t = jnp.linspace(path.t_min, path.t_max, num)
    x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(KEY, (num, 2))
    return t, paths.perturb(path, x, t, jax.random.normal(jax.random.key(1), x.shape))


def along_the_flow(path, x_t, t):
    """The x and eps of the Gaussian's velocity, each as its own conditional mean."""
    alpha, sigma = paths.scales(path, t, x_t)
    x0 = gaussian_denoiser(path, MEAN, VARIANCE)(x_t, t[:, None])
    return x0, sigma * (x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)


@every_path
def test_the_exact_function_has_no_tangent(path):
    """Along the closed-form flow f does not change: g of (3) vanishes at every time, the ends included."""
    t, x_t = points(path)
    x0, eps = along_the_flow(path, x_t, t)
    out, g = jax.jit(lambda: tangent(path, exact_network, x_t, t, x0, eps, sigma_data=SIGMA_DATA))()
    chex.assert_trees_all_close(VIEW.to_x0(path, x_t, t, out), end_of_flow(path, x_t, t[:, None]), atol=1e-5)
    np.testing.assert_allclose(g, 0, atol=1e-5)


@every_path
def test_loss_of_the_exact_network(path):
    """With the Gaussian's own denoiser as the teacher nothing is left, up to rounding."""

    class Exact(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            del cond
            return exact_network(x, level)

    options = {"teacher": gaussian_teacher(path), "sigma_data": SIGMA_DATA, "num_warmup_steps": 0}
    model = continuous_consistency(Exact(), (2,), path=path, **options)
    params = {"net": {}, "weight": {"kernel": jnp.zeros(16), "bias": jnp.zeros(())}}
    loss, (_, metrics) = jax.jit(model.loss)(params, {"step": jnp.asarray(0), "teacher": {}}, KEY, data(KEY))
    assert loss < 1e-8
    assert metrics["tangent"] < 1e-5


def deviations(x_t, y):
    """The coefficients of y by least squares on (1, x_t), in standard errors, which the residuals give."""
    columns = np.column_stack([np.ones(len(x_t)), x_t]).astype(float)
    inverse = np.linalg.inv(columns.T @ columns)
    coefficients = inverse @ (columns.T @ y)
    squares = (y - columns @ coefficients) ** 2
    variances = [np.diag(inverse @ (columns.T * square) @ columns @ inverse) for square in squares.T]
    return abs(coefficients) / np.sqrt(np.transpose(variances))


@every_path
def test_without_a_teacher_the_exact_function_rests_in_the_mean(path):
    """E[g | x_t] = 0 over pairs (x, eps) of the data, though no single g is 0; of a network 5% too large it is not.

    Given x_t the pair is Gaussian, so that g is symmetric, and the mean of g / (|g| + c) is 0, too.
    """
    x = data(KEY, 100_000).x
    eps = jax.random.normal(jax.random.key(1), x.shape)

    @jax.jit
    def run(t, size):
        times = jnp.full(len(x), t)
        x_t = paths.perturb(path, x, times, eps)
        network = lambda y, a: size * exact_network(y, a)  # noqa: E731
        return x_t, tangent(path, network, x_t, times, x, eps, sigma_data=SIGMA_DATA)[1]

    for t in (0.3, 0.6, 0.9):
        (x_t, exact), (_, wrong) = run(t, 1.0), run(t, 1.05)
        assert abs(exact).mean() > 0.03
        for of in (np.asarray, lambda g: np.asarray(g) / (np.linalg.norm(g, axis=-1, keepdims=True) + 0.1)):
            assert deviations(x_t, of(exact)).max() < 4
            assert deviations(x_t, of(wrong)).max() > 8


def test_the_tangent_is_the_derivative_of_the_function():
    """Of another function g is cos(a) d(f / s)/da, by differences in float64 along a straight pair (x, eps)."""
    path, t = paths.cosine(), jnp.array([0.05, 0.3, 0.6, 0.95])
    x, eps = jax.random.normal(KEY, (2, 4, 2))

    def angle(t):
        return np.arctan2(np.sin(np.pi * t / 2), SIGMA_DATA * np.cos(np.pi * t / 2))

    def network(y, a):
        return jnp.sin(y) * jnp.cos(3 * a)[:, None] + a[:, None] ** 2

    def f(t):
        cos, sin = np.cos(angle(t))[:, None], np.sin(angle(t))[:, None]
        y = cos * np.asarray(x, float) / SIGMA_DATA + sin * np.asarray(eps, float)
        return cos * y + sin * (np.sin(y) * np.cos(3 * angle(t))[:, None] + angle(t)[:, None] ** 2)

    x_t = paths.perturb(path, x, t, eps)
    _, g = jax.jit(lambda: tangent(path, network, x_t, t, x, eps, sigma_data=SIGMA_DATA))()
    times, h = np.asarray(t, float), 1e-5
    slope = (f(times + h) - f(times - h)) / (angle(times + h) - angle(times - h))[:, None]
    np.testing.assert_allclose(g, np.cos(angle(times))[:, None] * slope, rtol=1e-4, atol=1e-5)


def test_tangents_are_finite_at_the_ends():
    """A network that starts at zero, at hardly any noise and at hardly any data."""
    net, path = TimeMLP((8,)), paths.cosine(margin=1e-5)
    t = jnp.array([path.t_min, path.t_max])
    x, eps = jax.random.normal(KEY, (2, 2, 2))
    params, x_t = net.init(KEY, x, t), paths.perturb(path, x, t, eps)
    run = lambda: tangent(path, lambda y, a: net.apply(params, y, a), x_t, t, x, eps, sigma_data=0.5)  # noqa: E731
    _, g = jax.jit(run)()
    assert abs(g).max() < 20


def data(key, num=256):
    return Batch(MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(key, (num, 2)))


@pytest.mark.parametrize("distil", [True, False], ids=["distilled", "trained"])
def test_training_reaches_the_closed_form(distil):
    """800 steps from scratch: one-step samples against the ends of the Gaussian's flow, same latents.

    Without a teacher, and in two dimensions, the direction of g is noise: c must not be small beside it.
    """
    path, net = paths.cosine(), TimeMLP((64, 64), embed=slow_features)
    options = {"teacher": gaussian_teacher(path)} if distil else {"offset": 1.0}
    model = continuous_consistency(net, (2,), num_warmup_steps=200, num_steps=2, **options)
    tx = optax.adam(optax.cosine_decay_schedule(2e-3, 800))
    params = fit(model, tx, data, start(model, tx, data), 800).ema_params
    latent = jax.random.normal(jax.random.key(9), (1000, 2))
    ends = end_of_flow(path, path.sigma(path.t_max) * latent, path.t_max)
    found = float(jnp.sqrt(((jax.jit(model.decode)(params, latent) - ends) ** 2).sum(-1).mean()))
    assert found < 0.1
    x = jax.jit(lambda: model.sample(params, KEY, 5000))()
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.08)
    np.testing.assert_allclose(x.std(0), jnp.sqrt(VARIANCE), rtol=0.15)


def test_the_loss_is_what_it_says():
    """From g by hand: at equal parameters the error is |g / (|g| + c)|^2 / D, weighted; rho rises with the step."""
    path, net = paths.cosine(), TimeMLP((8,))
    model = continuous_consistency(
        net, (2,), times=lambda path, key, num: jnp.linspace(0.1, 0.9, num), num_warmup_steps=10
    )
    state = start(model, optax.sgd(0.1), data)
    weight = {"kernel": jax.random.normal(KEY, (16,)), "bias": jnp.ones(())}
    params = {"net": jax.tree.map(lambda leaf: leaf + 0.1, state.params["net"]), "weight": weight}
    batch, t = data(KEY, 4), jnp.linspace(0.1, 0.9, 4)
    loss, (carry, metrics) = jax.jit(model.loss)(params, {"step": jnp.asarray(5)}, KEY, batch)
    eps = jax.random.normal(jax.random.split(KEY)[1], batch.x.shape)
    network = lambda x, level: net.apply({"params": params["net"]}, x, level)  # noqa: E731
    x_t = paths.perturb(path, batch.x, t, eps)
    _, g = jax.jit(lambda: tangent(path, network, x_t, t, batch.x, eps, sigma_data=0.5, share=0.5))()
    norm = np.linalg.norm(g, axis=-1)
    w = log_weight(weight, path, t)
    np.testing.assert_allclose(loss, (np.exp(w) * (norm / (norm + 0.1)) ** 2 / 2 - w).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["tangent"], norm.mean(), rtol=1e-4)
    assert carry["step"] == 6


def test_it_starts_from_a_diffusion_model():
    """One step of the student from a diffusion model's parameters is that model's denoiser."""
    net = TimeMLP((8,))
    before = diffusion(net, (2,), parametrization=VIEW)
    params = jax.tree.map(lambda leaf: leaf + 0.1, start(before, optax.sgd(0.1), data).params)
    model = continuous_consistency(net, (2,))
    state = start(model, optax.sgd(0.1), data)
    state = starting_from(state, {**state.params, "net": params})
    path, latent = paths.cosine(), jax.random.normal(KEY, (3, 2))
    x_max = path.sigma(path.t_max) * latent
    x0 = paths.SCORE.to_x0(path, x_max, path.t_max, before.score(params, x_max, path.t_max))
    chex.assert_trees_all_close(model.decode(state.params, latent), x0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_steps": 0}, "got 0"),
        ({"offset": 0.0}, "and 0.0"),
        ({"num_warmup_steps": -1}, "-1"),
        ({"grid": lambda path, num_steps: jnp.array([0.1, 0.7])}, r"grid of falling times, got \[0\.1 0\.7\]"),
        ({"teacher": gaussian_teacher(paths.cosine())._replace(score=None)}, "score"),
    ],
)
def test_arguments_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        continuous_consistency(TimeMLP((4,)), (2,), **options)
