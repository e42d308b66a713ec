"""MeanFlow: the mean velocity of a Gaussian in closed form obeys its identity, and training reaches it."""

from contextlib import nullcontext

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


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_loss_of_the_exact_network(share):
    """What is left of the loss is noise: (dx_s/dx_t)^2 Var[v | x_t] in closed form, in the mean over the intervals.

    By (1) the residual is -(I - (t - s) du/dx) (v - E[v | x_t]), and the flow of a Gaussian stretches x by the ratio of
    the standard deviations.
    """
    model = mean_flow(Exact(), (2,), instant_share=share, power=0.0, times=paths.independent_times)

    def loss(key):
        data_key, key = jax.random.split(key)
        x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(data_key, (2000, 2))
        return model.loss({}, (), key, Batch(x))[0]

    found = jax.jit(jax.vmap(loss))(jax.random.split(KEY, 50))
    variance = np.asarray(VARIANCE, float)
    spread = lambda t: (1 - t) ** 2 * variance + t**2  # noqa: E731
    times = PATH.t_min + (PATH.t_max - PATH.t_min) * (np.arange(500) + 0.5)[:, None] / 500
    t, s = np.maximum(times[:, None], times), np.minimum(times[:, None], times)
    noise = variance / spread(t)
    expected = share * noise.mean() + (1 - share) * (spread(s) / spread(t) * noise).mean()
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(50)


def test_errors_are_weighted_by_a_power_of_themselves():
    """Of one example: (e + c)^-p e, and (e + c)^-p times the gradient of e, through which the weight has none."""
    net, batch = TimeMLP((8,)), Batch(jnp.array([[1.0, -2.0]]))
    params = jax.tree.map(lambda leaf: leaf + 0.1, mean_flow(net, (2,)).init(KEY, batch)[0])

    def run(**options):
        model = mean_flow(net, (2,), instant_share=0.0, offset=0.5, **options)
        return jax.jit(jax.value_and_grad(lambda params: model.loss(params, (), KEY, batch)[0]))(params)

    (plain, slope), (found, found_slope) = run(power=0.0), run(power=0.75)
    weight = (plain + 0.5) ** -0.75
    np.testing.assert_allclose(found, weight * plain, rtol=1e-5)
    chex.assert_trees_all_close(found_slope, jax.tree.map(lambda leaf: weight * leaf, slope), rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_guidance_by_labels_that_nobody_reads_is_refused_at_init(scale):
    """Of a network without classes, or of data without labels; one with classes, and one without guidance, pass."""
    init = lambda classes, batch: jax.eval_shape(  # noqa: E731
        mean_flow(TimeMLP((4,), classes), (2,), guidance_scale=scale, null=2).init, KEY, batch
    )
    batch = labelled(KEY, 4)
    init(3, batch)
    for refused, message in (
        (batch, "mean_flow with guidance needs a conditional model"),
        (Batch(batch.x), "mean_flow with guidance needs a label for every example, got cond=None"),
    ):
        with nullcontext() if scale == 1 else pytest.raises(ValueError, match=message):
            init(0, refused)


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
        ({"grid": lambda path, num_steps: jnp.array([0.1, 0.7])}, r"grid of falling times, got \[0\.1 0\.7\]"),
    ],
)
def test_arguments_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        mean_flow(TimeMLP((4,)), (2,), **options)
