"""The variational bound on mixtures whose log-density is known: its gap is never negative, and is what it must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import paths
from tests import analytic

KEY, NUM = jax.random.key(0), 4000
PATHS = {
    "cosine": paths.cosine(margin=1e-3),
    "variance_preserving": paths.variance_preserving(),
    "linear": paths.linear(),
    "sub_variance_preserving": paths.sub_variance_preserving(),
}
CASES = [("cosine", 2), ("cosine", 16), ("cosine", 256)] + [(name, 16) for name in PATHS if name != "cosine"]
TIGHT = {2: (512, 0.03), 16: (256, 0.015), 256: (64, 0.01)}
"""By dimensions, how many times the exact denoiser is asked, and what is left to chance in nats per dimension."""


def gaps(path, num_dims, error, num_times=8):
    """ln p - bound at points of the mixture, for a denoiser whose noise is wrong by a constant in every dimension."""
    mixture = analytic.mixture(num_dims)
    score = analytic.score(mixture, path)

    def denoise(x_t, t):
        alpha, sigma = paths.scales(path, t, x_t)
        eps = error - sigma * jax.vmap(lambda x, t: score(x[None], t)[0])(x_t, t)
        return (x_t - sigma * eps) / alpha

    x = jnp.asarray(analytic.sample(mixture, 0, NUM))
    bound = jax.jit(lambda x: paths.variational_bound(path, denoise, KEY, x, num_times=num_times))(x)
    return np.asarray(analytic.log_prob(mixture, x) - bound, np.float64)


@pytest.mark.parametrize(("name", "num_dims"), CASES)
def test_the_gap_is_the_error_of_the_denoiser(name, num_dims):
    """In the mean over the data it is D c^2 / 2 for each unit of log-SNR, c the error of the noise; 0 for none."""
    path = PATHS[name]
    length = float(paths.log_snr(path, path.t_min) - paths.log_snr(path, path.t_max))
    for error in (0.0, 0.3):
        found = gaps(path, num_dims, error)
        chance = 4 * found.std() / np.sqrt(NUM)
        assert abs(found.mean() - 0.5 * num_dims * error**2 * length) < chance + 1e-3 * num_dims
        assert found.mean() > -chance
        assert chance < 0.1 * num_dims * 0.3**2 * length


@pytest.mark.parametrize(("name", "num_dims"), CASES)
def test_the_gap_of_the_exact_denoiser_is_zero(name, num_dims):
    """In the mean over the data, by so many times that little is left to chance."""
    num_times, share = TIGHT[num_dims]
    found = gaps(PATHS[name], num_dims, 0.0, num_times)
    chance = 4 * found.std() / np.sqrt(NUM)
    assert chance < share * num_dims
    assert -chance < found.mean() < chance + 1e-3 * num_dims
