r"""Probabilistic principal component analysis: a Gaussian with a low-rank covariance.

With latent z of K dimensions, data x of D dimensions, loadings W [D, K], mean mu and noise variance sigma^2:

    (1)  z ~ N(0, I),  x | z ~ N(W z + mu, sigma^2 I),  so  x ~ N(mu, C),  C = W W^T + sigma^2 I
    (2)  M = W^T W + sigma^2 I,  ln|C| = (D - K) ln sigma^2 + ln|M|
    (3)  z | x ~ N(z_hat, sigma^2 M^-1),  z_hat = M^-1 W^T (x - mu)
    (4)  (x - mu)^T C^-1 (x - mu) = |x - mu - W z_hat|^2 / sigma^2 + |z_hat|^2
    (5)  maximum likelihood: W = U (L - sigma^2 I)^1/2 with the K largest eigenvalues L of the covariance and their
         eigenvectors U; sigma^2 = mean of the D - K smallest = mean |(I - U U^T)(x - mu)|^2 / (D - K)

(4) and the last form in (5) have no difference of large numbers, so that float32 suffices.

Source: Probabilistic Principal Component Analysis, Tipping and Bishop, 1999,
https://doi.org/10.1111/1467-9868.00196.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.core import Model
from jaxgen.types import Batch, Carry, Cond, Metrics, Params, PerExample, PRNGKey

__all__ = ["fit", "ppca"]

Data = Float[Array, "n d"]
Latent = Float[Array, "n k"]


def _precision_factor(params: Params) -> Float[Array, "k k"]:
    """Lower Cholesky factor of M in (2)."""
    loadings = params["loadings"]
    return jnp.linalg.cholesky(loadings.T @ loadings + jnp.exp(2 * params["log_scale"]) * jnp.eye(loadings.shape[1]))


def _posterior_mean(params: Params, factor: Float[Array, "k k"], x: Data) -> Latent:
    """z_hat in (3); M is small and inverted once: to solve for every example is hundreds of times slower on CPU."""
    inverse = jax.scipy.linalg.cho_solve((factor, True), jnp.eye(factor.shape[0]))
    return (x - params["mean"]) @ params["loadings"] @ inverse


def decode(params: Params, latent: Latent, cond: Cond = None) -> Data:
    """Mean of x | z, as in (1)."""
    del cond
    return latent @ params["loadings"].T + params["mean"]


def encode(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> Latent:
    """Draws z | x, as in (3)."""
    del cond
    factor = _precision_factor(params)
    mean = _posterior_mean(params, factor, x)
    noise = jax.random.normal(key, mean.shape)
    return mean + jnp.exp(params["log_scale"]) * jax.scipy.linalg.solve_triangular(factor.T, noise.T).T


def log_prob(params: Params, x: Data, cond: Cond = None) -> PerExample:
    """Log-density of N(mu, C) by (2) and (4), in nats."""
    del cond
    (d, k), log_scale = params["loadings"].shape, params["log_scale"]
    factor = _precision_factor(params)
    z_hat = _posterior_mean(params, factor, x)
    residual = (x - decode(params, z_hat)) * jnp.exp(-log_scale)
    log_det = 2 * (d - k) * log_scale + 2 * jnp.log(jnp.diagonal(factor)).sum()
    return -0.5 * ((residual**2).sum(-1) + (z_hat**2).sum(-1) + log_det + d * jnp.log(2 * jnp.pi))


def fit(x: Data, num_latents: int, *, ddof: int = 0) -> Params:
    """Maximum-likelihood parameters in closed form, by (5).

    Args:
        x: data `[n, d]`.
        num_latents: K, the number of latent dimensions, 1 <= K < d.
        ddof: the covariance divides by n - ddof. 0 is maximum likelihood, which training by gradient also reaches; 1
            is the convention of scikit-learn's `PCA`.

    Returns:
        Parameters for the model that `ppca(d, num_latents)` builds.

    Raises:
        ValueError: if K is out of range.
    """
    n, d = x.shape
    _check_num_latents(num_latents, d)
    mean = x.mean(0)
    centred = x - mean
    values, vectors = jnp.linalg.eigh(centred.T @ centred / (n - ddof))
    values, vectors = values[d - num_latents :], vectors[:, d - num_latents :]
    residual = centred - (centred @ vectors) @ vectors.T
    variance = (residual**2).sum() / ((n - ddof) * (d - num_latents))
    stretch = jnp.sqrt(jnp.maximum(values - variance, 0))
    return {"mean": mean, "loadings": vectors * stretch, "log_scale": 0.5 * jnp.log(variance)}


def _check_num_latents(num_latents: int, num_dims: int) -> None:
    if not 1 <= num_latents < num_dims:
        raise ValueError(f"num_latents must be at least 1 and below the {num_dims} data dimensions, got {num_latents}")


def ppca(num_dims: int, num_latents: int) -> Model:
    """Builds probabilistic PCA of vectors.

    Args:
        num_dims: D, the number of data dimensions.
        num_latents: K, the number of latent dimensions, 1 <= K < D.

    Returns:
        A `Model` of data `[n, D]` with `log_prob`, `encode` (a draw from the exact posterior) and `decode` (the mean).
        Its `loss` is the mean negative log-likelihood in nats; `fit` maximises it in closed form.

    Raises:
        ValueError: if K is out of range.

    Source: Probabilistic Principal Component Analysis, https://doi.org/10.1111/1467-9868.00196.
    """
    _check_num_latents(num_latents, num_dims)

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        del batch
        loadings = jax.random.normal(key, (num_dims, num_latents)) / jnp.sqrt(num_dims)
        return {"mean": jnp.zeros(num_dims), "loadings": loadings, "log_scale": jnp.zeros(())}, ()

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        del key
        return -log_prob(params, batch.x).mean(), (carry, {})

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        del cond
        latent_key, noise_key = jax.random.split(key)
        latent = jax.random.normal(latent_key, (num, num_latents))
        noise = jax.random.normal(noise_key, (num, num_dims))
        return decode(params, latent) + jnp.exp(params["log_scale"]) * noise

    return Model(init=init, loss=loss, sample=sample, log_prob=log_prob, encode=encode, decode=decode)
