"""How much the squared error of a network's output counts at a time: `(path, parametrization, t [n]) -> w [n]`.

Most weights are stated for one view; an error of x0 is b(t) times as large in the output (`sensitivity`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.paths.parametrizations import Parametrization, sensitivity
from jaxgen.paths.path import Path, log_snr

__all__ = ["denoising_weight", "min_snr_weight", "sigmoid_weight", "simple_weight", "variational_weight"]

Times = Float[Array, " n"]


def _of_denoiser(path: Path, parametrization: Parametrization, t: Times, weight: Times) -> Times:
    return weight / sensitivity(path, parametrization, t) ** 2


def simple_weight(path: Path, parametrization: Parametrization, t: Times) -> Times:
    """W = 1 on the error of the output itself."""
    del path, parametrization
    return jnp.ones_like(t)


def denoising_weight(path: Path, parametrization: Parametrization, t: Times) -> Times:
    """1 on the error of x0."""
    return _of_denoiser(path, parametrization, t, jnp.ones_like(t))


def min_snr_weight(gamma: float = 5.0) -> Callable[[Path, Parametrization, Any], Any]:
    """min(SNR, gamma) on the error of x0, that is min(1, gamma / SNR) on the error of the noise.

    Source: Efficient Diffusion Training via Min-SNR Weighting Strategy, https://arxiv.org/abs/2303.09556.
    """

    def weight(path: Path, parametrization: Parametrization, t: Times) -> Times:
        return _of_denoiser(path, parametrization, t, jnp.minimum(jnp.exp(log_snr(path, t)), gamma))

    return weight


def sigmoid_weight(bias: float = 2.0) -> Callable[[Path, Parametrization, Any], Any]:
    """sigmoid(bias - log_snr) on the error of the noise, in the measure of log_snr.

    Source: Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation,
    https://arxiv.org/abs/2303.00848, section 4.
    """

    def weight(path: Path, parametrization: Parametrization, t: Times) -> Times:
        return jax.nn.sigmoid(bias - log_snr(path, t)) * variational_weight(path, parametrization, t)

    return weight


def variational_weight(path: Path, parametrization: Parametrization, t: Times) -> Times:
    """-log_snr'(t) / 2 on the error of the noise: with uniform times the loss is the negative variational bound.

    Up to the length of the range of times, a constant, and the number of dimensions, over which losses are averaged.

    Source: Variational Diffusion Models, https://arxiv.org/abs/2107.00630, equation 17.
    """
    slope = jax.jvp(lambda t: log_snr(path, t), (t,), (jnp.ones_like(t),))[1]
    return _of_denoiser(path, parametrization, t, -0.5 * slope * jnp.exp(log_snr(path, t)))
