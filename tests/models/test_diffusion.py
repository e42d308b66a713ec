"""Diffusion with exact denoisers in the place of networks, and trained on small data."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import stats

from jaxgen import paths
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.nets.time import TimeMLP
from jaxgen.samplers.heun import heun
from jaxgen.types import Batch
from tests import analytic
from tests.training import fit, start

KEY = jax.random.key(0)
MEAN, VARIANCE = np.array([0.4, -0.3]), np.array([0.25, 1.5])
PATHS = {
    "variance_preserving": paths.variance_preserving(),
    "cosine": paths.cosine(),
    "variance_exploding": paths.variance_exploding(sigma_max=500.0),
    "sub_variance_preserving": paths.sub_variance_preserving(),
}
PARAMETRIZATIONS = {"x0": paths.X0, "eps": paths.EPS, "v": paths.V, "score": paths.SCORE}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
every_parametrization = pytest.mark.parametrize("view", PARAMETRIZATIONS.values(), ids=PARAMETRIZATIONS.keys())


def gaussian(path, view, **options):
    """A model whose network is the exact denoiser of N(MEAN, diag VARIANCE), as the parametrisation wants it."""

    class Exact(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            del cond
            t = paths.time_of_log_snr(path, -2 * level)[:, None]
            x_t = x * jnp.sqrt(path.alpha(t) ** 2 + path.sigma(t) ** 2)
            x0 = analytic.gaussian_denoiser(path, MEAN, VARIANCE)(x_t, t)
            return view.from_x0(path, x_t, t[:, 0], x0)

    return diffusion(Exact(), (2,), path=path, parametrization=view, **options)


def data(num):
    return jnp.asarray(np.random.default_rng(0).normal(MEAN, np.sqrt(VARIANCE), (num, 2)), jnp.float32)


@every_path
@every_parametrization
def test_score_equals_the_gradient_of_the_marginal(path, view):
    t, x = jnp.array([0.4, 0.6, 0.9]), data(3)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    expected = -(x - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
    found = jax.jit(gaussian(path, view).score)({}, x, t)
    chex.assert_trees_all_close(found, expected, rtol=2e-3, atol=1e-3)


@every_path
def test_elbo_of_the_exact_denoiser_is_the_likelihood(path):
    """Where the denoiser is exact, the continuous-time bound is tight; many draws at few points against scipy."""
    x = data(4)
    many = jnp.tile(x, (5_000, 1))
    draws = jax.jit(gaussian(path, paths.V).elbo)({}, KEY, many).reshape(-1, 4)
    expected = stats.norm(MEAN, np.sqrt(VARIANCE)).logpdf(np.asarray(x)).sum(-1)
    np.testing.assert_array_less(abs(draws.mean(0) - expected), 4 * draws.std(0) / np.sqrt(len(draws)) + 5e-3)


def test_elbo_of_a_mixture_in_16_dimensions():
    """With the exact noise of each example the gap to the log-density is 0 in the mean, within chance, below a nat."""
    mixture, path, num = analytic.mixture(16), paths.cosine(), 8000
    score = jax.vmap(lambda x, t: analytic.score(mixture, path)(x[None], t)[0])

    class Exact(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            t = 2 / jnp.pi * jnp.arctan(jnp.exp(level))  # tan(pi t / 2) = sigma / alpha
            return -path.sigma(t)[:, None] * score(x, t)  # alpha^2 + sigma^2 = 1: x is x_t

    x = jnp.asarray(analytic.sample(mixture, 0, num))
    model = diffusion(Exact(), (16,), path=path, parametrization=paths.EPS)
    gap = analytic.log_prob(mixture, x) - jax.jit(model.elbo)({}, KEY, x)
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(num) < 1


@every_path
def test_encode_follows_the_closed_form_flow(path):
    """Latents of a Gaussian are (x - mean) / standard deviation, and `decode` takes them back."""
    model = gaussian(path, paths.V, grid=paths.log_snr_grid, num_steps=100)
    x = data(200)
    latent = jax.jit(model.encode)({}, KEY, x)
    np.testing.assert_allclose(latent, (x - MEAN) / np.sqrt(VARIANCE), atol=0.02)
    np.testing.assert_allclose(jax.jit(model.decode)({}, latent), x, atol=0.01)


@pytest.mark.parametrize("stepper", [None, heun()], ids=["ddim", "heun"])
def test_samples_have_the_moments(stepper):
    model = gaussian(paths.cosine(), paths.V, stepper=stepper, num_steps=100)
    x = jax.jit(lambda key: model.sample({}, key, 20_000))(KEY)
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.04)
    np.testing.assert_allclose(x.var(0), VARIANCE, rtol=0.05)


@pytest.mark.parametrize("view", [paths.X0, paths.EPS, paths.V], ids=["x0", "eps", "v"])
def test_loss_of_the_exact_denoiser(view):
    """What is left is the variance of what is predicted, given x_t: Var[x_0 | x_t] in closed form, scaled."""
    path = paths.cosine()
    batch = Batch(data(50_000))
    loss = jax.jit(lambda: gaussian(path, view).loss({}, (), KEY, batch)[0])()
    t = jnp.linspace(path.t_min, path.t_max, 20_001)
    alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
    variance = VARIANCE * sigma**2 / (alpha**2 * VARIANCE + sigma**2)
    x_t = jnp.zeros((len(t), 1))
    slope = view.from_x0(path, x_t, t, jnp.ones_like(x_t))
    expected = (variance * slope**2).mean()
    np.testing.assert_allclose(loss, expected, rtol=0.05)


@pytest.mark.parametrize("view", [paths.EPS, paths.V], ids=["eps", "v"])
@pytest.mark.parametrize("path", [paths.linear(), paths.sub_variance_preserving()], ids=["linear", "sub_vp"])
def test_the_variational_loss_is_the_negative_bound(path, view):
    """D (t_max - t_min) loss = constants - elbo = 1/2 int E|eps - eps(x_t, t)|^2 dlambda, for a denoiser that is wrong.

    Data are N(MEAN + 0.5, 2 VARIANCE), and the model denoises N(MEAN, VARIANCE): at the signal-to-noise ratio r its
    error is ((r VARIANCE)^2 + r E(x - MEAN)^2) / (r VARIANCE + 1)^2 in each dimension, by quadrature in float64. The
    loss sees even times, and of x and eps the points one standard deviation off, whose squares have the true mean.
    """
    centre, spread, num = MEAN + 0.5, np.sqrt(2 * VARIANCE), 20_000
    lowest, highest = (float(paths.log_snr(path, t)) for t in (path.t_max, path.t_min))
    log_snr = np.linspace(lowest, highest, 20_001)
    snr = np.exp(log_snr)[:, None]
    errors = ((snr * VARIANCE) ** 2 + snr * (2 * VARIANCE + 0.25)) / (snr * VARIANCE + 1) ** 2
    expected = 0.5 * np.trapezoid(errors.sum(1), log_snr)

    def times(path, key, num):
        return path.t_min + (path.t_max - path.t_min) * jnp.repeat((jnp.arange(num // 4) + 0.5) / (num // 4), 4)

    pairs = paths.Coupling(lambda key, batch: (), lambda carry, key, batch: (batch.x, batch.cond))
    model = gaussian(path, view, weight=paths.variational_weight, times=times, coupling=pairs)
    signs = jnp.tile(jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]), (num // 4, 1))
    batch = Batch(centre + spread * signs[:, :1], jnp.repeat(signs[:, 1:], 2, 1))
    loss = jax.jit(model.loss)({}, (), KEY, batch)[0]
    np.testing.assert_allclose(2 * (path.t_max - path.t_min) * loss, expected, rtol=1e-3)
    x = centre + spread * jax.random.normal(jax.random.key(1), (8000, 2))
    constants = highest - np.log(2 * np.pi) - 1 - 0.5 * np.exp(lowest) * (x**2).sum(1)
    found = constants - jax.jit(model.elbo)({}, KEY, x)
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(8000) < 0.03 * expected


def test_loss_of_edm():
    """Equation 8 of https://arxiv.org/abs/2206.00364, coefficients and lambda of table 1, by example in float64."""
    sigmas, spread = np.array([0.003, 0.1, 0.5, 2.0, 30.0]), 0.7

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            return jnp.tanh(x) + level[:, None]

    model = diffusion(
        Net(),
        (2,),
        path=paths.karras(),
        parametrization=paths.preconditioned(sigma_data=spread),
        times=lambda path, key, num: jnp.float32(sigmas),
    )
    y = data(5)
    found = jax.jit(model.loss)({}, (), KEY, Batch(y))[0]
    n = sigmas[:, None] * np.asarray(jax.random.normal(jax.random.split(KEY)[1], (5, 2)), float)
    y, total = np.asarray(y, float), sigmas**2 + spread**2
    c_skip, c_out, c_in, c_noise = spread**2 / total, sigmas * spread / np.sqrt(total), total**-0.5, np.log(sigmas) / 4
    output = np.tanh(c_in[:, None] * (y + n)) + c_noise[:, None]
    target = (y - c_skip[:, None] * (y + n)) / c_out[:, None]
    squares = total / (sigmas * spread) ** 2 * c_out**2 * ((output - target) ** 2).sum(1)
    np.testing.assert_allclose(found, squares.mean() / 2, rtol=1e-4)  # a loss is a mean over dimensions, too
    denoised = c_skip[:, None] * (y + n) + c_out[:, None] * output
    errors = total / (sigmas * spread) ** 2 * ((denoised - y) ** 2).sum(1)
    np.testing.assert_allclose(found, errors.mean() / 2, rtol=1e-4)  # equation 2, of which 8 is another form


EXPLODING = (lambda t: np.ones_like(t), lambda t: 0.01 * 5000**t)
QUARTER_CIRCLE = (lambda t: np.cos(np.pi * t / 2), lambda t: np.sin(np.pi * t / 2))
STRAIGHT = (lambda t: 1 - t, lambda t: t)
PARABOLA = (lambda path, view, t: 0.5 + 3 * t**2, lambda t: 0.5 + 3 * t**2)


def v_of(alpha, sigma, x, eps):
    return alpha * eps - sigma * x


def noise_of(alpha, sigma, x, eps):
    return eps


def data_of(alpha, sigma, x, eps):
    return x


def velocity_of(alpha, sigma, x, eps):
    """On the straight line, dx_t / dt with x_t = (1 - t) x + t eps."""
    return eps - x


def score_of(alpha, sigma, x, eps):
    """The gradient of ln N(x_t; alpha x, sigma^2 I) by x_t."""
    return -eps / sigma


def min_snr_of(t):
    """On v along the quarter circle: min(SNR, 5) / (SNR + 1), https://arxiv.org/abs/2303.09556."""
    snr = np.tan(np.pi * t / 2) ** -2
    return min(snr, 5) / (snr + 1)


def sigmoid_of(t):
    """On the noise: sigmoid(2 - l) / 2 in the measure of l = -2 ln tan(pi t / 2), with dl / dt = -2 pi / sin(pi t)."""
    tangent = np.tan(np.pi * t / 2)
    return np.pi / np.sin(np.pi * t) / (1 + np.exp(-2) * tangent**-2)


@pytest.mark.parametrize(
    ("path", "scales", "view", "target_of", "weight", "weight_of"),
    [
        (paths.cosine(), QUARTER_CIRCLE, paths.V, v_of, *PARABOLA),
        (paths.variance_exploding(sigma_min=0.01, sigma_max=50.0), EXPLODING, paths.EPS, noise_of, *PARABOLA),
        (paths.cosine(), QUARTER_CIRCLE, paths.X0, data_of, *PARABOLA),
        (paths.linear(), STRAIGHT, paths.VELOCITY, velocity_of, *PARABOLA),
        (paths.cosine(), QUARTER_CIRCLE, paths.SCORE, score_of, *PARABOLA),
        (paths.cosine(), QUARTER_CIRCLE, paths.V, v_of, paths.min_snr_weight(5.0), min_snr_of),
        (paths.cosine(), QUARTER_CIRCLE, paths.EPS, noise_of, paths.sigmoid_weight(2.0), sigmoid_of),
    ],
    ids=["v", "eps", "x0", "velocity", "score", "min_snr", "sigmoid"],
)
def test_loss_is_the_mean_of_weighted_errors(path, scales, view, target_of, weight, weight_of):
    """By hand in float64, example by example, with a network and a weight that depend on the time."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            return jnp.tanh(x) * cond[:, None] + level[:, None]

    def times(path, key, num):
        return jnp.linspace(0.1, 0.9, num)

    model = diffusion(Net(), (2,), path=path, parametrization=view, times=times, weight=weight)
    batch = Batch(data(6), jnp.arange(6.0))
    found = jax.jit(model.loss)({}, (), KEY, batch)[0]
    noise = np.asarray(jax.random.normal(jax.random.split(KEY)[1], (6, 2)), float)
    losses = []
    for x, eps, cond, t in zip(np.asarray(batch.x, float), noise, np.arange(6), np.linspace(0.1, 0.9, 6), strict=True):
        alpha, sigma = (scale(t) for scale in scales)
        out = np.tanh((alpha * x + sigma * eps) / np.sqrt(alpha**2 + sigma**2)) * cond + np.log(sigma / alpha)
        losses.append(weight_of(t) * ((out - target_of(alpha, sigma, x, eps)) ** 2).mean())
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize("times", [paths.independent_times, paths.stratified_times])
def test_times_are_uniform(times):
    path = paths.variance_preserving()
    found = jax.vmap(lambda key: times(path, key, 4)[0])(jax.random.split(KEY, 4000))
    assert stats.kstest(np.asarray(found), "uniform").pvalue > 1e-3


def test_stratified_times_cover_the_range():
    found = np.sort(paths.stratified_times(paths.variance_preserving(t_min=1e-5), KEY, 50))
    np.testing.assert_allclose(np.diff(found), 1 / 50, rtol=1e-3)


def trained(model, draw, *, num_steps=800):
    """Parameters after a quick training."""
    tx = optax.adam(optax.cosine_decay_schedule(3e-3, num_steps))
    return fit(model, tx, draw, start(model, tx, draw), num_steps).ema_params


def test_a_network_learns_two_classes():
    """Moments of samples given the class against those of the data, and the bound against the true likelihood."""
    scale, centres = 0.25, jnp.array([[1.0, 0.5], [-1.0, 0.0]])

    def draw(key, num=256):
        label_key, noise_key = jax.random.split(key)
        cond = jax.random.randint(label_key, (num,), 0, 2)
        return Batch(centres[cond] + scale * jax.random.normal(noise_key, (num, 2)), cond)

    model = diffusion(TimeMLP((64, 64), num_classes=2), (2,), num_steps=40)
    params = trained(model, draw)
    cond = jnp.repeat(jnp.arange(2), 2000)
    x = jax.jit(lambda key: model.sample(params, key, 4000, cond))(KEY).reshape(2, 2000, 2)
    np.testing.assert_allclose(x.mean(1), centres, atol=0.06)
    np.testing.assert_allclose(x.std(1), scale, rtol=0.2)
    batch = draw(jax.random.key(5), 20_000)
    bound = jax.jit(model.elbo)(params, KEY, *batch)
    truth = stats.norm(centres[batch.cond], scale).logpdf(np.asarray(batch.x)).sum(-1).mean()
    assert truth - 0.3 < bound.mean() < truth + 4 * bound.std() / np.sqrt(20_000)


def test_number_of_steps_is_checked():
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        diffusion(TimeMLP((8,)), (2,), num_steps=0)
    with pytest.raises(ValueError, match="expected a grid of falling times"):
        diffusion(TimeMLP((8,)), (2,), grid=lambda path, num_steps: paths.uniform_grid(path, num_steps)[::-1])
