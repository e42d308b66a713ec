"""The VAE against numerical integration over its latent and against PPCA."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxgen.core import importance_bound, init_state, train_step
from jaxgen.distributions import bernoulli_likelihood, normal_likelihood, normal_log_prob
from jaxgen.models.autoencoders.vae import vae
from jaxgen.models.classical import ppca
from jaxgen.nets import pure
from jaxgen.nets.mlp import MLP
from jaxgen.types import Batch

LIKELIHOODS = {"bernoulli": bernoulli_likelihood, "normal": normal_likelihood}


def make(likelihood, *, num_classes=0):
    encoder, decoder = MLP((8,), 2, num_classes), MLP((8,), 3, num_classes)
    return vae(encoder, decoder, likelihood, latent_dim=1), decoder


def data(name, num):
    x = jax.random.normal(jax.random.key(7), (num, 3))
    return (x > 0).astype(jnp.uint8) if name == "bernoulli" else x


def exact_log_prob(likelihood, decoder, params, x, cond=None):
    """Ln p(x) by the trapezium rule over the one latent dimension."""
    grid = jnp.linspace(-8, 8, 4001)

    def log_joint(z):
        output = pure.apply(decoder, params["decoder"], jnp.full((x.shape[0], 1), z), cond)
        return likelihood.log_prob(params["likelihood"], x, output) + normal_log_prob(z)

    return jax.nn.logsumexp(jax.lax.map(log_joint, grid), axis=0) + jnp.log(grid[1] - grid[0])


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("num_classes", [0, 4])
def test_bounds_meet_the_integral(name, num_classes):
    """Mean weight = p(x); mean elbo = mean log-weight <= ln p(x); the bound rises with k and meets ln p(x)."""
    likelihood, x, cond = LIKELIHOODS[name](), data(name, 4), jnp.arange(4)
    model, decoder = make(likelihood, num_classes=num_classes)
    params, _ = model.init(jax.random.key(0), Batch(x, cond))
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(1), p.shape), params)
    exact = exact_log_prob(likelihood, decoder, params, x, cond)

    def mean_bound(k, repeats):
        bound = importance_bound(model, k)
        keys = jax.random.split(jax.random.key(k), repeats)
        values = jax.jit(jax.vmap(lambda key: bound(params, key, x, cond)))(keys)
        return values.mean(0), values.std(0) / jnp.sqrt(repeats)

    repeated = [jnp.repeat(v, 5_000, 0) for v in (x, cond)]
    elbo = model.elbo(params, jax.random.key(2), *repeated).reshape(4, -1)
    weights = model.log_weight(params, jax.random.key(3), *repeated).reshape(4, -1)
    error = (elbo.std(1) + weights.std(1)) / np.sqrt(5_000)
    assert jnp.all(jnp.abs(elbo.mean(1) - weights.mean(1)) < 5 * error)
    assert jnp.all(elbo.mean(1) < exact)

    few, few_error = mean_bound(5, 200)
    many, many_error = mean_bound(5_000, 2)
    assert jnp.all(weights.mean(1) < few + 5 * few_error)
    assert jnp.all(few < many + 5 * (few_error + many_error))
    np.testing.assert_allclose(many, exact, atol=0.05)


class LinearEncoder(nn.Module):
    """Posterior of a linear VAE: a mean linear in x and a constant scale."""

    @nn.compact
    def __call__(self, x, cond=None):
        mean = nn.Dense(2)(x)
        return jnp.concatenate(
            [mean, jnp.broadcast_to(self.param("log_scale", nn.initializers.zeros, 2), mean.shape)], -1
        )


def test_a_linear_vae_reaches_the_ppca_likelihood():
    truth = {
        "mean": jnp.arange(6.0) / 6,
        "loadings": jax.random.normal(jax.random.key(0), (6, 2)) * jnp.array([2.0, 1.0]),
        "log_scale": jnp.array(-0.5),
    }
    x = ppca.ppca(6, 2).sample(truth, jax.random.key(1), 500)
    best = ppca.log_prob(ppca.fit(x, 2), x).mean()

    model = vae(LinearEncoder(), MLP((), 6), normal_likelihood(), latent_dim=2)
    tx = optax.adam(optax.cosine_decay_schedule(0.03, 6000))
    state, step = init_state(model, tx, jax.random.key(2), Batch(x)), train_step(model, tx)
    run = jax.jit(lambda state: jax.lax.scan(lambda s, _: (step(s, Batch(x))[0], None), state, None, length=6000)[0])
    params = run(state).params

    decoder = params["decoder"]["Dense_0"]
    as_ppca = {"mean": decoder["bias"], "loadings": decoder["kernel"].T, "log_scale": params["likelihood"]["log_scale"]}
    elbo = jnp.mean(jax.vmap(lambda key: model.elbo(params, key, x).mean())(jax.random.split(jax.random.key(3), 200)))
    assert best - 0.01 < ppca.log_prob(as_ppca, x).mean() < best + 1e-4
    assert best - 0.02 < elbo < best + 0.005


def test_decode_is_the_mean_of_samples():
    model, _ = make(bernoulli_likelihood())
    params, _ = model.init(jax.random.key(0), Batch(data("bernoulli", 4)))
    latent = jax.random.normal(jax.random.key(5), (50_000, 1))
    samples = model.sample(params, jax.random.key(6), 50_000)
    np.testing.assert_allclose(samples.mean(0), model.decode(params, latent).mean(0), atol=0.02)
    assert samples.dtype == jnp.uint8


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="got 0"):
        vae(MLP((), 4), MLP((), 6), normal_likelihood(), latent_dim=0)
    with pytest.raises(ValueError, match="must give 4"):
        vae(MLP((), 3), MLP((), 6), normal_likelihood(), latent_dim=2).init(jax.random.key(0), Batch(jnp.zeros((2, 6))))
