"""Densities whose diffusion is known in closed form: Gaussians, and mixtures of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import paths


class Mixture(NamedTuple):
    """A mixture of isotropic Gaussians: weights `[k]`, means `[k, d]`, scales `[k]`."""

    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray


def mixture(num_dims: int = 2) -> Mixture:
    """Three components; the mean of the mixture is 0."""
    weights = np.array([0.3, 0.3, 0.4])
    means = np.random.default_rng(0).normal(size=(3, num_dims))
    return Mixture(weights, means - weights @ means, np.array([0.3, 0.4, 0.5]))


def sample(mixture: Mixture, seed: int, num: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    which = rng.choice(3, num, p=mixture.weights)
    noise = rng.normal(size=(num, mixture.means.shape[1]))
    return (mixture.means[which] + mixture.scales[which, None] * noise).astype(np.float32)


def log_prob(mixture: Mixture, x, alpha=1.0, sigma=0.0):
    """Log-density of alpha x_0 + sigma eps: each component stays a Gaussian."""
    variance = alpha**2 * mixture.scales**2 + sigma**2
    square = ((x[:, None] - alpha * mixture.means) ** 2).sum(-1)
    log_normal = -0.5 * square / variance - 0.5 * x.shape[1] * jnp.log(2 * jnp.pi * variance)
    return jax.scipy.special.logsumexp(log_normal + jnp.log(mixture.weights), axis=-1)


def score(mixture: Mixture, path: paths.Path):
    """Gradient of `log_prob` at time t, by autodiff."""
    return lambda x, t: jax.grad(lambda x: log_prob(mixture, x, path.alpha(t), path.sigma(t)).sum())(x)


def gaussian_denoiser(path: paths.Path, mean, variance):
    """E[x_0 | x_t] for x_0 ~ N(mean, diag(variance)), by conditioning the joint Gaussian."""

    def denoise(x_t, t):
        alpha, sigma = path.alpha(t), path.sigma(t)
        return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean)

    return denoise


def gaussian_flow(path: paths.Path, mean, variance, x_t, t, s):
    """The probability flow of a Gaussian: it keeps (x_t - alpha_t mean) / standard deviation of x_t."""
    spread = lambda t: jnp.sqrt(path.alpha(t) ** 2 * variance + path.sigma(t) ** 2)  # noqa: E731
    return path.alpha(s) * mean + spread(s) / spread(t) * (x_t - path.alpha(t) * mean)
