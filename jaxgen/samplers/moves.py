r"""What the steppers share: how x moves over an interval t -> s, once a clean x0 is decided on.

    (1)  follow:   x_s = alpha_s x0 + sigma_s eps,  eps = (x_t - alpha_t x0) / sigma_t
    (2)  refresh:  x_s ~ q(x_s | x_t, x0)

(1) is exact along the probability flow, and (2) along the reversed stochastic process, as long as x0 does not change on
the way. It does, slowly, as a function of half the log-SNR, whose intervals have the length (4). (3) goes back.

    (3)  diffuse:  x_s ~ q(x_s | x_t) = N((alpha_s / alpha_t) x_t, (1 - SNR(s) / SNR(t)) sigma_s^2 I),  s > t
    (4)  h = (log_snr(s) - log_snr(t)) / 2,  infinite where sigma_s = 0

Source: DPM-Solver++, https://arxiv.org/abs/2211.01095, proposition 4.1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen import paths
from jaxgen.paths import Path, Time
from jaxgen.types import Data, PRNGKey, Scalar

__all__ = ["diffuse", "follow", "gap", "land", "refresh"]


def follow(path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time, x0: Data) -> Data:
    """(1), in either direction of time; the key is not used."""
    del key
    return paths.perturb(path, x0, s, paths.eps(path, x_t, t, x0))


def refresh(path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time, x0: Data) -> Data:
    """(2), for s < t."""
    mean, scale = paths.posterior(path, x_t, t, s, x0)
    return mean + scale * jax.random.normal(key, x_t.shape)


def diffuse(path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time, *, noise: Scalar = 1.0) -> Data:
    """(3), its noise multiplied by `noise`; `x_t` itself where s = t."""
    ratio = paths.scales(path, s, x_t)[0] / paths.scales(path, t, x_t)[0]
    log_rho = jnp.minimum(2 * gap(path, t, s), 0.0)
    fresh = noise * path.sigma(s) * jnp.sqrt(-jnp.expm1(log_rho))
    return ratio * x_t + fresh * jax.random.normal(key, x_t.shape)


def land(path: Path, s: Time, x_s: Data, x0: Data) -> Data:
    """`x_s`, but alpha_s x0 where no noise is left: methods that divide by sigma_s end like (1)."""
    alpha, sigma = paths.scales(path, s, x_s)
    return jnp.where(sigma > 0, x_s, alpha * x0)


def gap(path: Path, t: Time, s: Time) -> Float[Array, ""]:
    """(4)."""
    return 0.5 * (paths.log_snr(path, s) - paths.log_snr(path, t))
