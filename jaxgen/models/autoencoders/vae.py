r"""Variational autoencoder: a latent-variable model trained by a bound on its likelihood.

With latent z of K dimensions, an encoder that gives mean and scale, and a decoder that gives the likelihood's output:

    (1)  z ~ N(0, I),  x | z ~ p(x | decoder(z)),  q(z | x) = N(mean(x), diag scale(x)^2)
    (2)  elbo       = ln p(x | z) - KL(q(z | x) || N(0, I)),            z ~ q(z | x)
    (3)  log_weight = ln p(x | z) + ln N(z; 0, I) - ln q(z | x),        z ~ q(z | x)

Both have z = mean + scale * noise, so that gradients pass; E[exp (3)] = p(x) and E[(2)] = E[(3)] <= ln p(x).

Source: Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxgen.core import Model
from jaxgen.distributions import Likelihood, normal_kl, normal_log_prob, sum_event
from jaxgen.nets import pure
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["vae"]

Latent = Float[Array, "n k"]


def vae(encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood, *, latent_dim: int) -> Model:
    """Builds a variational autoencoder.

    Args:
        encoder: `(x, cond) -> [n, 2 * latent_dim]`: the mean and the logarithm of the scale of q(z|x).
        decoder: `(z [n, latent_dim], cond) -> output`, which the likelihood reads.
        likelihood: density of x given the decoder's output, such as `bernoulli_likelihood()` or `normal_likelihood()`.
        latent_dim: K, the number of latent dimensions.

    Returns:
        A `Model` with `elbo` (the divergence in closed form), `log_weight`, `encode` (a draw from q(z|x)) and `decode`
        (the mean of x|z). Its `loss` is the mean negative elbo in nats; the metrics are its two terms.

    Raises:
        ValueError: if `latent_dim < 1`; at `init`, if the encoder's output has not `2 * latent_dim` columns.

    Source: Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114.
    """
    if latent_dim < 1:
        raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")

    def posterior(params: Params, x: Data, cond: Cond) -> tuple[Latent, Latent]:
        mean, log_scale = jnp.split(pure.apply(encoder, params["encoder"], x, cond), 2, axis=-1)
        return mean, log_scale

    def log_likelihood(params: Params, x: Data, latent: Latent, cond: Cond) -> PerExample:
        output = pure.apply(decoder, params["decoder"], latent, cond)
        return likelihood.log_prob(params["likelihood"], x, output)

    def terms(params: Params, key: PRNGKey, x: Data, cond: Cond) -> tuple[PerExample, PerExample]:
        mean, log_scale = posterior(params, x, cond)
        latent = mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape)
        return log_likelihood(params, x, latent, cond), sum_event(normal_kl(mean, log_scale))

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        encoder_key, decoder_key = jax.random.split(key)
        encoder_params = pure.init(encoder, encoder_key, batch.x, batch.cond)
        code = pure.apply(encoder, encoder_params, batch.x, batch.cond)
        if code.shape[1:] != (2 * latent_dim,):
            raise ValueError(f"the encoder must give {2 * latent_dim} numbers an example, got shape {code.shape[1:]}")
        decoder_params = pure.init(decoder, decoder_key, code[:, :latent_dim], batch.cond)
        return {"encoder": encoder_params, "decoder": decoder_params, "likelihood": likelihood.init()}, ()

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        reconstruction, divergence = terms(params, key, batch.x, batch.cond)
        metrics = {"reconstruction": reconstruction.mean(), "kl": divergence.mean()}
        return (divergence - reconstruction).mean(), (carry, metrics)

    def elbo(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        reconstruction, divergence = terms(params, key, x, cond)
        return reconstruction - divergence

    def log_weight(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        mean, log_scale = posterior(params, x, cond)
        noise = jax.random.normal(key, mean.shape)
        latent = mean + jnp.exp(log_scale) * noise
        log_ratio = normal_log_prob(latent) - normal_log_prob(noise) + log_scale
        return log_likelihood(params, x, latent, cond) + sum_event(log_ratio)

    def encode(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Latent:
        mean, log_scale = posterior(params, x, cond)
        return mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape)

    def decode(params: Params, latent: Latent, cond: Cond = None) -> Data:
        return likelihood.mean(params["likelihood"], pure.apply(decoder, params["decoder"], latent, cond))

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        latent_key, data_key = jax.random.split(key)
        latent = jax.random.normal(latent_key, (num, latent_dim))
        output = pure.apply(decoder, params["decoder"], latent, cond)
        return likelihood.sample(params["likelihood"], data_key, output)

    return Model(init=init, loss=loss, sample=sample, log_weight=log_weight, elbo=elbo, encode=encode, decode=decode)
