"""MeanFlow: the mean velocity of a Gaussian in closed form obeys its identity, and training reaches it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxgen import paths
from jaxgen.models.diffusion.mean_flow import identity, mean_flow
from jaxgen.nets.time import TimeMLP, slow_features
from jaxgen.types import Batch
from tests.analytic import gaussian_flow
from tests.training import fit, start

KEY = jax.random.key(0)
MEAN, VARIANCE = jnp.array([0.4, -0.3]), jnp.array([0.25, 1.5])
PATH = paths.linear()


def exact_mean_velocity(x_t, t, s):
    """(x_t - x_s) / (t - s) along the closed-form flow of the linear path, without the quotient."""
    t, s = (jnp.asarray(a).reshape(-1, 1) for a in (t, s))
    spread = lambda t: jnp.sqrt((1 - t) ** 2 * VARIANCE + t**2)  # noqa: E731
    slope = ((t + s - 2) * VARIANCE + t + s) / (spread(t) + spread(s))
    return -MEAN + (x_t - (1 - t) * MEAN) / spread(t) * slope


class Exact(nn.Module):
    @nn.compact
    def __call__(self, x, level, cond=None):
        del cond
        return exact_mean_velocity(x, level[:, 0], level[:, 0] - level[:, 1])


def points(num=200):
    one, other = jax.random.uniform(KEY, (2, num), minval=PATH.t_min, maxval=PATH.t_max)
    t, s = jnp.maximum(one, other), jnp.minimum(one, other)
    x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(jax.random.key(1), (num, 2))
    return paths.perturb(PATH, x, t, jax.random.normal(jax.random.key(2), (num, 2))), t, s


def test_the_closed_form_moves_along_the_flow():
    """The oracle against `gaussian_flow`, which is of another form."""
    x_t, t, s = points()
    moved = x_t - (t - s)[:, None] * exact_mean_velocity(x_t, t, s)
    expected = gaussian_flow(PATH, MEAN, VARIANCE, x_t, t[:, None], s[:, None])
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_the_exact_mean_velocity_obeys_the_identity():
    """With the velocity of the flow both sides of (2) are equal, to rounding; with another they are not."""
    x_t, t, s = points()
    velocity = exact_mean_velocity(x_t, t, t)
    u, target = jax.jit(lambda v: identity(exact_mean_velocity, x_t, t, s, v))(velocity)
    np.testing.assert_allclose(u, target, atol=1e-5)
    assert abs(jnp.subtract(*identity(exact_mean_velocity, x_t, t, s, velocity + 1))).mean() > 0.1


def test_the_target_is_the_identity_in_the_mean():
    """(2) is linear in v, so that the mean of the target given x_t is that of the flow's velocity: least squares."""
    t, s = jnp.full(100_000, 0.7), jnp.full(100_000, 0.2)
    x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(KEY, (100_000, 2))
    x_t = paths.perturb(PATH, x, t, jax.random.normal(jax.random.key(1), x.shape))
    u, target = jax.jit(lambda: identity(exact_mean_velocity, x_t, t, s, paths.velocity(PATH, x_t, t, x)))()
    for k in range(2):
        slope, offset = np.polyfit(x_t[:, k], target[:, k] - u[:, k], 1)
        assert max(abs(slope), abs(offset)) < 0.02


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_any_number_of_steps_ends_on_the_closed_form(num_steps):
    latent = jax.random.normal(KEY, (50, 2))
    found = jax.jit(mean_flow(Exact(), (2,), num_steps=num_steps).decode)({}, latent)
    end = gaussian_flow(PATH, MEAN, VARIANCE, PATH.sigma(PATH.t_max) * latent, PATH.t_max, PATH.t_min)
    np.testing.assert_allclose(found, end / PATH.alpha(PATH.t_min), atol=1e-5)


def test_score_of_the_exact_network():
    """Against the gradient of the Gaussian's marginal."""
    x_t, t, _ = points(20)
    alpha, sigma = PATH.alpha(t)[:, None], PATH.sigma(t)[:, None]
    expected = -(x_t - alpha * MEAN) / (alpha**2 * VARIANCE + sigma**2)
    chex.assert_trees_all_close(jax.jit(mean_flow(Exact(), (2,)).score)({}, x_t, t), expected, rtol=1e-3, atol=1e-3)


def labelled(key, num=256):
    """The Gaussian, and a second one beside it."""
    label_key, noise_key = jax.random.split(key)
    label = jax.random.randint(label_key, (num,), 0, 2)
    x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(noise_key, (num, 2))
    return Batch(x + 2.0 * label[:, None], label)


def trained(model, draw, num_steps, learning_rate=4e-3):
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
    return fit(model, tx, draw, start(model, tx, draw), num_steps).ema_params


def test_training_reaches_the_closed_form_for_two_labels():
    """1000 steps from scratch: one-step samples given each label against the ends of its flow, same latents."""
    net = TimeMLP((64, 64), num_classes=2, embed=slow_features)
    model = mean_flow(net, (2,), instant_share=0.5, power=0.5, times=paths.independent_times)
    params = trained(model, labelled, 1000)
    latent, decode = jax.random.normal(jax.random.key(9), (500, 2)), jax.jit(model.decode)
    x_max = PATH.sigma(PATH.t_max) * latent
    for label in range(2):
        ends = gaussian_flow(PATH, MEAN + 2.0 * label, VARIANCE, x_max, PATH.t_max, PATH.t_min)
        x = decode(params, latent, jnp.full(500, label))
        found = float(jnp.sqrt(((x - ends) ** 2).sum(-1).mean()))
        assert found < 0.25


def test_guided_targets():
    """At s = t the loss regresses omega v + (1 - omega) u(null), and v itself where the label is null: by hand."""
    net, batch, omega = TimeMLP((8,), num_classes=3), labelled(KEY, 16), 2.5
    batch = batch._replace(cond=batch.cond.at[:5].set(2))
    even = lambda path, key, num: jnp.linspace(0.1, 0.9, num)  # noqa: E731
    model = mean_flow(net, (2,), times=even, instant_share=1.0, power=0.0, guidance_scale=omega, null=2)
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(KEY, batch)[0])
    t, noise = even(PATH, KEY, 16), jax.random.normal(jax.random.split(KEY)[1], batch.x.shape)
    x_t, v = paths.perturb(PATH, batch.x, t, noise), noise - batch.x
    u = lambda label: net.apply({"params": params}, x_t, jnp.stack([t, 0 * t], -1), label)  # noqa: E731
    target = jnp.where(batch.cond[:, None] == 2, v, omega * v + (1 - omega) * u(jnp.full(16, 2)))
    loss = jax.jit(model.loss)(params, (), KEY, batch)[0]
    np.testing.assert_allclose(loss, ((u(batch.cond) - target) ** 2).mean(), rtol=1e-4)


def test_a_share_of_the_intervals_is_empty():
    """Exactly the share of the batch has s = t, which the network is told as 0."""
    told = []

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, x, level, cond=None):
            del cond
            jax.debug.callback(lambda level: told.append(np.asarray(level)), level)
            return x * self.param("scale", nn.initializers.ones, ())

    model = mean_flow(Spy(), (2,), instant_share=0.25)
    params = model.init(KEY, labelled(KEY, 64))[0]
    told.clear()
    model.loss(params, (), KEY, labelled(KEY, 64))
    jax.effects_barrier()
    assert (told[0][:, 1] == 0).sum() == 16
    assert (told[0] >= 0).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_steps": 0}, "got 0"),
        ({"instant_share": 1.5}, "1.5"),
        ({"offset": 0.0}, "0.0"),
        ({"guidance_scale": 2.0}, "null"),
    ],
)
def test_arguments_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        mean_flow(TimeMLP((4,)), (2,), **options)
