"""Couplings of data and noise, and flow matching with them: assignments against scipy, flows against closed forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy.optimize import linear_sum_assignment

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.nets.time import TimeMLP
from jaxgen.samplers.heun import heun
from jaxgen.teaching import starting_from, with_teacher
from jaxgen.types import Batch
from tests import analytic
from tests.training import fit, start

KEY = jax.random.key(0)
PATH = paths.linear()
FLOW = {"path": PATH, "parametrization": paths.VELOCITY}
MIXTURE = analytic.mixture()
MEAN, VARIANCE = jnp.array([0.4, -0.3]), jnp.array([0.25, 1.5])


TRANSPORT = jax.jit(paths.optimal_transport_coupling().pair)


def check_transport(x, noise, free):
    """The noise is a permutation of the free draws, at scipy's least total squared distance."""
    x, noise, free = (np.asarray(a) for a in (x, noise, free))
    np.testing.assert_array_equal(np.sort(noise, 0), np.sort(free, 0))
    cost = ((x[:, None] - free[None]) ** 2).sum(-1)
    np.testing.assert_allclose(((x - noise) ** 2).sum(), cost[linear_sum_assignment(cost)].sum(), rtol=1e-5)


@pytest.mark.parametrize("num_labels", [1, 3])
def test_the_transport_is_scipys_and_noise_stays_with_its_condition(num_labels):
    """The data is untouched, and given a label its noise is its own draws, optimally permuted."""
    label = jnp.arange(64) % num_labels
    batch = Batch(jax.random.normal(jax.random.key(1), (64, 2)) + 5 * label[:, None], label)
    x, noise = TRANSPORT((), KEY, batch)
    free = paths.independent_coupling().pair((), KEY, batch)[1]
    chex.assert_trees_all_equal(x, batch.x)
    for k in range(num_labels):
        check_transport(*(a[label == k] for a in (x, noise, free)))


def test_an_assignment_of_what_is_not_a_number_ends():
    batch = Batch(jnp.full((64, 2), jnp.nan), jnp.arange(64))
    assert np.isfinite(TRANSPORT((), KEY, batch)[1]).all()


def test_the_exact_velocity_is_the_best_affine_one():
    """Of all networks a(t) x + b(t), at three times, least squares finds the closed-form velocity of a Gaussian."""
    mean, variance, num = 0.4, 0.3, 100_000
    for now in (0.1, 0.5, 0.9):
        batch = Batch(mean + np.sqrt(variance) * jax.random.normal(jax.random.key(1), (num, 1)))
        x, noise = paths.independent_coupling().pair((), KEY, batch)
        x_t = paths.perturb(PATH, x, now, noise)
        target = paths.VELOCITY.from_x0(PATH, x_t, now, x)
        features = np.concatenate([x_t, np.ones_like(x_t)], -1).astype(np.float64)
        found = features[:4] @ np.linalg.lstsq(features, np.asarray(target, np.float64), rcond=None)[0]
        moved = lambda s, now=now, x_t=x_t: analytic.gaussian_flow(PATH, mean, variance, x_t[:4], now, s)  # noqa: E731
        np.testing.assert_allclose(found, jax.jacfwd(moved)(now), atol=0.02)


def pairs_by_hand(scale):
    """Noise and MEAN + scale noise, and the carry of that coupling."""

    def pair(carry, key, batch):
        noise = jax.random.normal(key, batch.x.shape)
        return MEAN + scale * noise, noise

    return paths.Coupling(lambda key, batch: (), pair), ()


def pairs_of_a_teacher(scale):
    """The same by `reflow_coupling`, from a teacher that finds its scale among its parameters."""
    scales = {"scale": jnp.broadcast_to(scale, (2,))}
    teacher = Model(
        init=lambda key, batch: (scales, ()),
        loss=lambda params, carry, key, batch: (jnp.zeros(()), (carry, {})),
        sample=lambda params, key, num, cond=None: jnp.zeros((num, 2)),
        decode=lambda params, latent, cond=None: MEAN + params["scale"] * latent,
    )
    return paths.reflow_coupling(teacher), {"teacher": scales}


@pytest.mark.parametrize("pairs", [pairs_by_hand, pairs_of_a_teacher], ids=["by_hand", "reflow"])
@pytest.mark.parametrize("scale", [0.0, np.sqrt(VARIANCE)], ids=["point", "gaussian"])
def test_the_loss_of_the_exact_velocity_is_zero(scale, pairs):
    """Noise goes to MEAN + scale noise on lines that do not cross: x_t tells the noise, and with it noise - x.

    Roots of losses, in units of that of a network that says 0: below 1e-5, and 0.01 with 1 percent too much velocity.
    """

    class Exact(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            t = nn.sigmoid(level)[:, None]
            noise = (x * jnp.sqrt((1 - t) ** 2 + t**2) - (1 - t) * MEAN) / ((1 - t) * scale + t)
            return cond[:, None] * (noise - (MEAN + scale * noise))

    coupling, carry = pairs(scale)
    model = diffusion(Exact(), (2,), coupling=coupling, **FLOW)
    loss = jax.jit(lambda share: model.loss({}, carry, KEY, Batch(jnp.zeros((1000, 2)), jnp.full(1000, share)))[0])
    exact, wrong, none = (np.sqrt(loss(share)) for share in (1.0, 1.01, 0.0))
    assert exact < 1e-5 * none
    np.testing.assert_allclose(wrong, 0.01 * none, rtol=1e-3)


def mixture_batch(key, num=128):
    which_key, noise_key = jax.random.split(key)
    which = jax.random.choice(which_key, 3, (num,), p=jnp.asarray(MIXTURE.weights))
    scale = jnp.asarray(MIXTURE.scales)[which][:, None]
    return Batch(jnp.asarray(MIXTURE.means)[which] + scale * jax.random.normal(noise_key, (num, 2)))


def ends(model, latent):
    """`params` to where the model's own flow ends, and where one Euler step does."""

    def run(params):
        net = lambda x, level: TimeMLP((32, 32)).apply({"params": params}, x, level)  # noqa: E731
        denoise = paths.denoiser(PATH, paths.VELOCITY, net)
        return model.decode(params, latent), denoise(PATH.sigma(PATH.t_max) * latent, PATH.t_max)

    return jax.jit(run)


def distance(a, b):
    return float(jnp.sqrt(((a - b) ** 2).sum(-1).mean()))


def test_couplings_straighten_the_flow():
    """On a mixture one step errs less with optimal transport, and after reflow, than with independent pairs."""
    tx, net = optax.adam(optax.cosine_decay_schedule(6e-3, 300)), TimeMLP((32, 32))
    plain = diffusion(net, (2,), num_steps=8, **FLOW)
    transport = diffusion(net, (2,), coupling=paths.optimal_transport_coupling(), **FLOW)
    reflow = diffusion(net, (2,), coupling=paths.reflow_coupling(plain), **FLOW)
    few = lambda key: mixture_batch(key, 64)  # noqa: E731
    teacher = fit(plain, tx, mixture_batch, start(plain, tx, mixture_batch), 300).ema_params
    coupled = fit(transport, tx, few, start(transport, tx, mixture_batch), 300).ema_params
    state = starting_from(with_teacher(start(reflow, tx, mixture_batch), teacher), teacher)
    student = fit(reflow, tx, few, state, 200).ema_params
    run = ends(plain, jax.random.normal(jax.random.key(7), (500, 2)))
    found = [run(params) for params in (teacher, coupled, student)]
    errors = [distance(*pair) for pair in found]
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.3 * errors[0]
    assert distance(found[0][0], found[2][0]) < 0.2


def closed_form_end(latent):
    """Where the flow to N(MEAN, diag VARIANCE) carries latents."""
    end = analytic.gaussian_flow(PATH, MEAN, VARIANCE, PATH.sigma(PATH.t_max) * latent, PATH.t_max, PATH.t_min)
    return end / PATH.alpha(PATH.t_min)


def test_flow_matching_of_the_exact_network_ends_on_the_closed_form():
    """A network that is the exact velocity of a Gaussian; Heun's method against the closed-form flow."""

    class Exact(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            del cond
            t = paths.time_of_log_snr(PATH, -2 * level)[:, None]
            x_t = x * jnp.sqrt(PATH.alpha(t) ** 2 + PATH.sigma(t) ** 2)
            moved = lambda s: analytic.gaussian_flow(PATH, MEAN, VARIANCE, x_t, t, s)  # noqa: E731
            return jax.jvp(moved, (t,), (jnp.ones_like(t),))[1]

    model = diffusion(Exact(), (2,), stepper=heun(), num_steps=50, **FLOW)
    latent = jax.random.normal(KEY, (100, 2))
    np.testing.assert_allclose(jax.jit(model.decode)({}, latent), closed_form_end(latent), atol=2e-3)


def test_flow_matching_learns_the_flow():
    """Trained from scratch on a Gaussian, 50 steps of Heun's method end on the closed form.

    Measured: 0.021 of the data's spread, root mean square over 1000 latents, after 1000 steps.
    """
    draw = lambda key: Batch(MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(key, (256, 2)))  # noqa: E731
    model, tx = diffusion(TimeMLP((32, 32)), (2,), **FLOW), optax.adam(optax.cosine_decay_schedule(6e-3, 1000))
    params = fit(model, tx, draw, start(model, tx, draw), 1000).ema_params
    latent = jax.random.normal(jax.random.key(7), (1000, 2))
    error = (jax.jit(model.decode)(params, latent) - closed_form_end(latent)) / np.sqrt(VARIANCE)
    assert jnp.sqrt((error**2).mean()) < 0.05


def test_parameters_that_do_not_fit_are_refused():
    tx = optax.sgd(0.1)
    plain = diffusion(TimeMLP((8,)), (2,), num_steps=1, **FLOW)
    taught = diffusion(TimeMLP((4,)), (2,), coupling=paths.reflow_coupling(plain), num_steps=1, **FLOW)
    state, other = start(taught, tx, mixture_batch), start(plain, tx, mixture_batch).params
    assert with_teacher(state, other).carry["teacher"] is not other
    with pytest.raises(ValueError, match=r"expected float32\(8,\), got float32\(4,\)"):
        with_teacher(state, state.params)
    with pytest.raises(ValueError, match="another structure"):
        starting_from(state, {})
    with pytest.raises(ValueError, match="holds none"):
        with_teacher(start(plain, tx, mixture_batch), other)
    with pytest.raises(ValueError, match="decode"):
        paths.reflow_coupling(plain._replace(decode=None))
