r"""Frechet distance between Gaussian fits of two sets of features.

With means m and covariances C (divided by n - 1), for the sets x and y:

    (1)  d^2 = |m_x - m_y|^2 + tr C_x + tr C_y - 2 tr (C_x C_y)^1/2
    (2)  tr (C_x C_y)^1/2 = sum of the square roots of the eigenvalues of C_x^1/2 C_y C_x^1/2
    (3)  C = R^T R, where (x - m) / sqrt(n - 1) = Q R;  tr (C_x C_y)^1/2 = sum of the singular values of R_x R_y^T

(3) takes no square root of a rounding error, so that float32 suffices even where there are fewer examples than
dimensions; (2) is for moments that somebody else has computed.

The value depends on the features, and its expectation on the number of examples: compare only what has both in
common. It may be called FID only with the features of the TF-Inception network.

Source: GANs Trained by a Two Time-Scale Update Rule, https://arxiv.org/abs/1706.08500; The Frechet distance between
multivariate normal distributions, https://doi.org/10.1016/0047-259X(82)90077-X.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.types import Scalar

__all__ = ["frechet_distance", "frechet_from_moments"]

Features = Float[Array, "n d"]
Other = Float[Array, "m d"]
Mean = Float[Array, " d"]
Covariance = Float[Array, "d d"]


def _factor(x: Features) -> tuple[Mean, Float[Array, "k d"]]:
    """The mean, and R in (3)."""
    mean = x.mean(0)
    return mean, jnp.linalg.qr((x - mean) / jnp.sqrt(x.shape[0] - 1), mode="r")


def frechet_distance(x: Features, y: Other) -> Scalar:
    """The squared distance (1) between Gaussian fits of two sets of features, by (3).

    Args:
        x: features `[n, d]`, n >= 2.
        y: features `[m, d]`, m >= 2.

    Returns:
        d^2 >= 0, in squared units of the features.

    Raises:
        ValueError: if a set has fewer than two examples.
    """
    for name, features in (("x", x), ("y", y)):
        if features.shape[0] < 2:
            raise ValueError(f"a covariance needs at least 2 examples, got {features.shape[0]} in {name}")
    (mean_x, factor_x), (mean_y, factor_y) = _factor(x), _factor(y)
    overlap = jnp.linalg.svd(factor_x @ factor_y.T, compute_uv=False).sum()
    traces = (factor_x**2).sum() + (factor_y**2).sum()
    return jnp.maximum(((mean_x - mean_y) ** 2).sum() + traces - 2 * overlap, 0)


def frechet_from_moments(mean_x: Mean, cov_x: Covariance, mean_y: Mean, cov_y: Covariance) -> Scalar:
    """The squared distance (1) between two Gaussians given by their moments, by (2).

    Args:
        mean_x: m_x `[d]`.
        cov_x: C_x `[d, d]`, symmetric and positive semi-definite.
        mean_y: m_y `[d]`.
        cov_y: C_y `[d, d]`, symmetric and positive semi-definite.

    Returns:
        d^2 >= 0. In float32 each direction in which a covariance is nearly singular adds an error of the order of
        sqrt(eps tr C_x tr C_y), eps = 1e-7: prefer `frechet_distance` where the features are at hand.
    """
    values, vectors = jnp.linalg.eigh(cov_x)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))
    product = root.T @ cov_y @ root
    overlap = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
    return jnp.maximum(((mean_x - mean_y) ** 2).sum() + jnp.trace(cov_x) + jnp.trace(cov_y) - 2 * overlap, 0)
