import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from scipy import integrate, stats

from jaxgen.core import init_state, train_step
from jaxgen.models.adversarial.gan import AdversarialLoss, gan, non_saturating, r1_penalty, two_player_optimizer
from jaxgen.nets.mlp import MLP
from jaxgen.types import Batch

NUM_CLASSES = 2


def small_gan(**options):
    generator = MLP((16,), 2, num_classes=NUM_CLASSES)
    discriminator = MLP((16,), 1, num_classes=NUM_CLASSES)
    return generator, discriminator, gan(generator, discriminator, 3, **options)


def small_batch(n=6):
    return Batch(jax.random.normal(jax.random.key(5), (n, 2)), jnp.arange(n) % NUM_CLASSES)


def relativistic():
    return AdversarialLoss(lambda real, fake: nn.softplus(fake - real), lambda real, fake: nn.softplus(real - fake))


@pytest.mark.parametrize(("pays", "r1_weight"), [(non_saturating, 0.0), (non_saturating, 3.0), (relativistic, 0.0)])
def test_each_player_gets_the_gradient_of_its_own_loss_alone(pays, r1_weight):
    """Oracle: jax.grad of each player's loss, written out separately."""
    generator, discriminator, model = small_gan(adversarial_loss=pays(), r1_weight=r1_weight)
    (x, cond), key = small_batch(), jax.random.key(1)
    params, carry = jax.jit(model.init)(jax.random.key(0), Batch(x, cond))
    z = jax.random.normal(key, (6, 3))

    def logits(d, x):
        return discriminator.apply({"params": d}, x, cond)[:, 0]

    def discriminator_loss(d, g):
        fake = generator.apply({"params": g}, z, cond)
        slopes = jax.vmap(jax.grad(lambda x, c: discriminator.apply({"params": d}, x[None], c[None])[0, 0]))(x, cond)
        return pays().discriminator(logits(d, x), logits(d, fake)).mean() + r1_weight / 2 * (slopes**2).sum(1).mean()

    def generator_loss(g, d):
        return pays().generator(logits(d, x), logits(d, generator.apply({"params": g}, z, cond))).mean()

    both = jax.jit(jax.value_and_grad(model.loss, has_aux=True))
    (loss, (_, metrics)), grads = both(params, carry, key, Batch(x, cond))
    d, g = params["discriminator"], params["generator"]
    d_value, d_grad = jax.jit(jax.value_and_grad(discriminator_loss))(d, g)
    g_value, g_grad = jax.jit(jax.value_and_grad(generator_loss))(g, d)
    chex.assert_trees_all_close(grads, {"discriminator": d_grad, "generator": g_grad}, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["discriminator_loss"], d_value, rtol=1e-6)
    np.testing.assert_allclose(metrics["generator_loss"], g_value, rtol=1e-6)
    np.testing.assert_allclose(loss, d_value + g_value, rtol=1e-6)


@pytest.mark.parametrize("silent", ["discriminator", "generator"])
def test_no_player_moves_the_other(silent):
    """With one player's loss constant its gradient is exactly zero, though the other's loss depends on it."""
    constant = {silent: lambda real, fake: jnp.zeros_like(fake)}
    _, _, model = small_gan(adversarial_loss=non_saturating()._replace(**constant))
    params, carry = jax.jit(model.init)(jax.random.key(0), small_batch())
    grads = jax.jit(jax.grad(model.loss, has_aux=True))(params, carry, jax.random.key(1), small_batch())[0]
    chex.assert_trees_all_equal(grads[silent], jax.tree.map(jnp.zeros_like, grads[silent]))
    other = grads["generator" if silent == "discriminator" else "discriminator"]
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(other))


def test_generator_plays_every_kth_step_and_rests_in_between():
    _, _, model = small_gan()
    tx = two_player_optimizer(optax.adam(1e-2), optax.adam(1e-2), generator_every=3)
    state = jax.jit(functools.partial(init_state, model, tx))(jax.random.key(0), small_batch())
    step = jax.jit(train_step(model, tx))

    def parts(state):
        """Parameters, and all of the optimiser's state except the counter of turns."""
        masked = state.opt_state.inner_states["generator"].inner_state
        generator = ravel_pytree((state.params["generator"], masked.inner_state))[0]
        discriminator = state.opt_state.inner_states["discriminator"]
        return generator, ravel_pytree((state.params["discriminator"], discriminator))[0], int(masked.step)

    moved = []
    for k in range(7):
        before, (state, _) = parts(state), step(state, small_batch())
        after = parts(state)
        moved.append(bool((before[0] != after[0]).any()))
        assert (before[1] != after[1]).any()
        assert after[2] == k + 1
    assert moved == [False, False, True, False, False, True, False]
    adam = state.opt_state.inner_states["generator"].inner_state.inner_state[0]
    assert int(adam.count) == 2


def test_two_player_optimizer_is_the_two_optimizers_side_by_side():
    """Oracle: each optimiser run alone on its own part."""
    params = {"generator": {"w": jnp.arange(3.0)}, "discriminator": {"w": jnp.ones(2)}}
    grads = {"generator": {"w": jnp.array([1.0, -2.0, 3.0])}, "discriminator": {"w": jnp.array([5.0, -1.0])}}
    txs = {"generator": optax.adamw(1e-2, weight_decay=0.1), "discriminator": optax.sgd(0.1)}
    tx = two_player_optimizer(txs["generator"], txs["discriminator"])
    updates, _ = tx.update(grads, tx.init(params), params)
    for name, alone in txs.items():
        expected, _ = alone.update(grads[name], alone.init(params[name]), params[name])
        chex.assert_trees_all_close(updates[name], expected, rtol=1e-6)


class Shift(nn.Module):
    """Generator of N(shift, 1)."""

    shift: float

    def __call__(self, z, cond=None):
        return z + self.shift


class LogRatio(nn.Module):
    """Discriminator ln N(x; 0, 2^2) - ln N(x; shift, 1), times a factor."""

    shift: float
    factor: float = 1.0

    def __call__(self, x, cond=None):
        p, q = jax.scipy.stats.norm.logpdf(x, 0, 2), jax.scipy.stats.norm.logpdf(x, self.shift, 1)
        return self.factor * (p - q)


def discriminator_losses(factor, x, shift):
    """L_D and its standard error over 20 batches."""
    model = gan(Shift(shift), LogRatio(shift, factor), 1)
    params = {"generator": {}, "discriminator": {}}
    parts = jax.jit(jax.vmap(lambda key, x: model.loss(params, (), key, Batch(x))[1][1]["discriminator_loss"]))(
        jax.random.split(jax.random.key(3), 20), x.reshape(20, -1, 1)
    )
    return parts.mean(), parts.std(ddof=1) / np.sqrt(20)


def test_optimal_discriminator_pays_the_jensen_shannon_divergence():
    """Oracle: (6), with the divergence of N(0, 2^2) and N(1.5, 1) by quadrature."""
    p, q = stats.norm(0, 2), stats.norm(1.5, 1)

    def divergence(a, b):
        def integrand(x):
            return a.pdf(x) * (a.logpdf(x) - np.logaddexp(a.logpdf(x), b.logpdf(x)) + np.log(2))

        return integrate.quad(integrand, -12, 12, epsabs=1e-10)[0]

    expected = 2 * np.log(2) - (divergence(p, q) + divergence(q, p))
    x = 2 * jax.random.normal(jax.random.key(2), (400_000,))
    loss, error = discriminator_losses(1.0, x, 1.5)
    assert error < 2e-3
    np.testing.assert_allclose(loss, expected, atol=4 * error)
    for factor in (0.5, 2.0):
        assert discriminator_losses(factor, x, 1.5)[0] > loss + 10 * error


def test_r1_of_a_quadratic_critic():
    """Oracle: D(x) = w.x + a |x|^2 / 2 has the gradient w + a x; the derivative by a is by hand as well."""
    x, w, a = jax.random.normal(jax.random.key(0), (5, 3)), jnp.array([1.0, -2.0, 0.5]), 0.7

    def penalty(a):
        return r1_penalty(lambda x: x @ w + a * (x**2).sum(-1) / 2, x)

    np.testing.assert_allclose(penalty(a), ((w + a * x) ** 2).sum(-1) / 2, rtol=1e-6)
    derivative = jax.jacfwd(penalty)(a)
    np.testing.assert_allclose(derivative, ((w + a * x) * x).sum(-1), rtol=1e-5, atol=1e-6)


def test_training_finds_mean_and_spread_of_each_class():
    """Oracle: the moments of the data, two Gaussians told apart by the label."""
    means, scales = jnp.array([[-2.0, 1.0], [1.0, 0.0]]), jnp.array([0.5, 1.0])
    net = functools.partial(MLP, (32, 32), num_classes=2, activation=nn.leaky_relu)
    model = gan(net(out_dim=2), net(out_dim=1), 2, r1_weight=0.3)
    tx = two_player_optimizer(optax.adam(3e-4, b1=0.5), optax.adam(3e-3, b1=0.5))

    def draw(key, n):
        labels = jnp.arange(n) % 2
        return Batch(means[labels] + scales[labels, None] * jax.random.normal(key, (n, 2)), labels)

    @jax.jit
    def train_and_sample(key):
        state, step = init_state(model, tx, key, draw(key, 128)), train_step(model, tx, ema_decay=0.9)
        keys = jax.random.split(key, 2000)
        state, _ = jax.lax.scan(lambda state, key: (step(state, draw(key, 128))[0], ()), state, keys)
        return model.sample(state.ema_params, key, 4000, draw(key, 4000).cond)

    x = train_and_sample(jax.random.key(0)).reshape(2000, 2, 2)
    np.testing.assert_allclose(x.mean(0), means, atol=0.15)
    np.testing.assert_allclose(x.std(0), jnp.stack([scales, scales], 1), rtol=0.15)


def test_sample_is_the_generator_of_normal_latents():
    generator, _, model = small_gan()
    params, _ = jax.jit(model.init)(jax.random.key(0), small_batch())
    key, cond = jax.random.key(9), jnp.array([0, 1, 1, 0])
    latent = jax.random.normal(key, (4, 3))
    expected = generator.apply({"params": params["generator"]}, latent, cond)
    chex.assert_trees_all_close(model.sample(params, key, 4, cond), expected, model.decode(params, latent, cond))
    assert jnp.abs(expected - model.decode(params, latent, 1 - cond)).min() > 0


def test_a_gan_defines_no_likelihood():
    _, _, model = small_gan()
    undefined = (model.log_prob, model.log_weight, model.elbo, model.energy, model.score, model.encode)
    assert undefined == (None,) * 6


def test_errors():
    with pytest.raises(ValueError, match="latent_dim must be at least 1, got 0"):
        gan(MLP((), 2), MLP((), 1), 0)
    with pytest.raises(ValueError, match="r1_weight must be at least 0, got -1"):
        gan(MLP((), 2), MLP((), 1), 3, r1_weight=-1.0)
    with pytest.raises(ValueError, match="generator_every must be at least 1, got 0"):
        two_player_optimizer(optax.sgd(1.0), optax.sgd(1.0), generator_every=0)
    with pytest.raises(ValueError, match=r"events of shape \(3,\), the data has \(2,\)"):
        gan(MLP((), 3), MLP((), 1), 3).init(jax.random.key(0), small_batch())
    with pytest.raises(ValueError, match=r"one logit for each example, got an output of shape \(6, 2\)"):
        gan(MLP((), 2), MLP((), 2), 3).init(jax.random.key(0), small_batch())
    with pytest.raises(ValueError, match="cond=None"):
        small_gan()[2].init(jax.random.key(0), Batch(small_batch().x))
