"""Shortcut models: the mean velocity of a Gaussian in closed form obeys their loss, and training reaches it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxgen import paths
from jaxgen.models.diffusion.shortcut import dyadic_steps, shortcut, two_halves
from jaxgen.nets.time import TimeMLP
from jaxgen.types import Batch
from tests.analytic import gaussian_flow
from tests.training import fit, start

KEY = jax.random.key(0)
MEAN, VARIANCE = jnp.array([0.4, -0.3]), jnp.array([0.25, 1.5])
PATH = paths.linear()


def exact(x_t, t, d):
    """The mean velocity over t - d .. t along the closed-form flow; at d = 0 its limit, by autodiff."""
    t, d = (jnp.asarray(a).reshape(-1, 1) for a in (t, d))
    moved = lambda s: gaussian_flow(PATH, MEAN, VARIANCE, x_t, t, s)  # noqa: E731
    instant = jax.jvp(moved, (t,), (jnp.ones_like(t),))[1]
    return jnp.where(d > 0, (x_t - moved(t - d)) / jnp.where(d > 0, d, 1.0), instant)


class Exact(nn.Module):
    @nn.compact
    def __call__(self, x, level, cond=None):
        del cond
        return exact(x, level[:, 0], level[:, 1])


def test_steps_are_dyadic():
    """Every length as often, and every step inside the path and on the grid of its length."""
    t, d, told = (np.asarray(a) for a in jax.jit(lambda: dyadic_steps(PATH, KEY, 4000, 4))())
    span = PATH.t_max - PATH.t_min
    lengths, counts = np.unique(np.round(span / d).astype(int), return_counts=True)
    np.testing.assert_array_equal(lengths, [1, 2, 4, 8])
    np.testing.assert_array_less(abs(counts - 1000), 150)
    place = (t - PATH.t_min) / d
    np.testing.assert_allclose(place, np.round(place), atol=1e-4)
    assert place.min() > 0.9
    assert t.max() < PATH.t_max + 1e-6
    np.testing.assert_allclose(told, np.where(d < span / 7, 0, d / 2), rtol=1e-6)


def test_the_exact_velocity_is_consistent_with_itself():
    """Two halves against the whole, at every length."""
    t, d, _ = dyadic_steps(PATH, KEY, 300, 7)
    x_t = jax.random.normal(jax.random.key(1), (300, 2))
    found = jax.jit(lambda: two_halves(exact, x_t, t, d, 0.5 * d))()
    # A quotient by d magnifies rounding: compared are the steps themselves.
    np.testing.assert_allclose(d[:, None] * (found - exact(x_t, t, d)), 0, atol=1e-5)


def test_loss_of_the_exact_network():
    """Steps of every length agree with their halves; told the flow's velocity in place of its mean, they do not.

    Only the halves of the shortest are told 0: an error, in a tenth of the batch, of the order of its length.
    """

    class Instant(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            del cond
            return exact(x, level[:, 0], jnp.zeros_like(level[:, 1]))

    def loss(net):
        model = shortcut(net, (2,), shortcut_share=1.0, num_levels=10)
        return jax.jit(model.loss)({}, {"target": {}}, KEY, data(KEY, 2000))[0]

    assert loss(Exact()) < 1e-6 < 1e-2 < loss(Instant())


@pytest.mark.parametrize("num_steps", [1, 2, 8])
def test_any_number_of_steps_ends_on_the_closed_form(num_steps):
    latent = jax.random.normal(KEY, (50, 2))
    found = jax.jit(shortcut(Exact(), (2,), num_steps=num_steps).decode)({}, latent)
    end = gaussian_flow(PATH, MEAN, VARIANCE, PATH.sigma(PATH.t_max) * latent, PATH.t_max, PATH.t_min)
    np.testing.assert_allclose(found, end / PATH.alpha(PATH.t_min), atol=1e-4)


def test_score_of_the_exact_network():
    """Against the gradient of the Gaussian's marginal."""
    t, x_t = jnp.linspace(0.1, 0.9, 20), jax.random.normal(KEY, (20, 2))
    alpha, sigma = PATH.alpha(t)[:, None], PATH.sigma(t)[:, None]
    expected = -(x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
    chex.assert_trees_all_close(jax.jit(shortcut(Exact(), (2,)).score)({}, x_t, t), expected, rtol=1e-3, atol=1e-3)


def data(key, num=256):
    return Batch(MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(key, (num, 2)))


def test_training_reaches_the_closed_form():
    """1000 steps from scratch: samples of 1 and 4 steps against the ends of the Gaussian's flow, same latents."""
    net, tx = TimeMLP((64, 64)), optax.adam(optax.cosine_decay_schedule(4e-3, 1000))
    options = {"num_levels": 5, "shortcut_share": 0.5, "target_decay": 0.9}
    model = shortcut(net, (2,), **options)
    params = fit(model, tx, data, start(model, tx, data), 1000).ema_params
    latent = jax.random.normal(jax.random.key(9), (1000, 2))
    ends = gaussian_flow(PATH, MEAN, VARIANCE, PATH.sigma(PATH.t_max) * latent, PATH.t_max, PATH.t_min)
    for num_steps in (1, 4):
        decode = jax.jit(shortcut(net, (2,), num_steps=num_steps, **options).decode)
        found = float(jnp.sqrt(((decode(params, latent) - ends) ** 2).sum(-1).mean()))
        assert found < 0.2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_steps": 0}, "and 0"),
        ({"num_steps": 3}, "and 3"),
        ({"num_steps": 128}, "128"),
        ({"shortcut_share": -0.1}, "-0.1"),
        ({"num_levels": 0}, "0"),
    ],
)
def test_arguments_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        shortcut(TimeMLP((4,)), (2,), **options)
