"""The likelihood of the probability flow against the densities of mixtures whose score is plugged in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard

from jaxgen import paths
from jaxgen.bijections import affine
from jaxgen.core import Model
from jaxgen.models.classical.ppca import ppca
from jaxgen.samplers.adaptive import dormand_prince
from jaxgen.transforms import dequantize, probability_flow, pull_back
from tests import analytic

PATHS = {
    "variance_preserving": paths.variance_preserving(),
    "cosine": paths.cosine(),
    "variance_exploding": paths.variance_exploding(sigma_max=500.0),
    "sub_variance_preserving": paths.sub_variance_preserving(),
}
NEAR = {
    "variance_preserving": (5, 45),
    "cosine": (5, 30),
    "variance_exploding": (2.5, 140),
    "sub_variance_preserving": (27, 110),
}
"""Root mean square errors of adaptive steps in units of their tolerance, as measured from 1e-2 to 1e-4, and how many
times less they are at the end of that."""

KEY = jax.random.key(0)


def exact_model(mixture, path):
    """A diffusion model that has learned its data perfectly."""
    score, num_dims = analytic.score(mixture, path), mixture.means.shape[1]
    return Model(
        init=lambda key, batch: ((), ()),
        loss=lambda params, carry, key, batch: (jnp.zeros(()), (carry, {})),
        sample=lambda params, key, num, cond=None: jnp.zeros((num, num_dims)),
        score=lambda params, x, t, cond=None: score(x, t),
    )


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_log_prob_equals_the_density_of_a_mixture(path):
    """To 1e-3 nats at every one of 500 points of the mixture, in float32."""
    mixture = analytic.mixture()
    flow = probability_flow(exact_model(mixture, path), path)
    x = jnp.asarray(analytic.sample(mixture, 0, 500))
    error = jax.jit(flow.log_prob)((), x) - analytic.log_prob(mixture, x)
    assert abs(error).max() < 1e-3


SOLVERS = {"fixed": {"num_steps": 60}, "adaptive": {"solver": dormand_prince(rtol=1e-5, atol=1e-5)}}


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
@pytest.mark.parametrize("num_probes", [0, 4], ids=["exact", "hutchinson"])
@pytest.mark.parametrize("num_dims", [2, 16, 256])
def test_likelihoods_within_a_thousandth_of_a_nat_per_dimension(num_dims, num_probes, solver):
    """On a mixture, exact divergences at each of 4 points: 1e-3 nats per dimension, as the name says.

    Hutchinson's estimate is shown to be unbiased within chance, not to be that near: 4 standard errors of the mean of
    64 draws at a point are allowed on top, up to 0.04 nats per dimension in 2 and 16 dimensions.
    """
    mixture, path = analytic.mixture(num_dims), paths.cosine(margin=3e-4)
    flow = probability_flow(exact_model(mixture, path), path, num_probes=num_probes, **solver)
    x = jnp.repeat(jnp.asarray(analytic.sample(mixture, 0, 4)), 64 if num_probes else 1, 0)
    found = jax.jit(flow.elbo if num_probes else lambda params, key, x: flow.log_prob(params, x))((), KEY, x)
    error = ((found - analytic.log_prob(mixture, x)) / num_dims).reshape(4, -1)
    chance = 4 * error.std(1) / np.sqrt(64) if num_probes else 0.0
    np.testing.assert_array_less(abs(error.mean(1)), 1e-3 + chance)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
@pytest.mark.parametrize("num_dims", [2, 16, 256])
def test_orthogonal_probes_leave_nothing_to_chance(monkeypatch, num_dims, solver):
    """Hutchinson's estimate over the rows of a Hadamard matrix is the trace: the mixture's log-density, to 1e-4."""
    signs = jnp.asarray(hadamard(num_dims), jnp.float32)[:, None]
    monkeypatch.setattr(jax.random, "rademacher", lambda key, shape, dtype: jnp.broadcast_to(signs, shape))
    mixture, path = analytic.mixture(num_dims), paths.cosine(margin=3e-4)
    flow = probability_flow(exact_model(mixture, path), path, num_probes=num_dims, **solver)
    x = jnp.asarray(analytic.sample(mixture, 0, 4))
    error = (jax.jit(flow.elbo)((), KEY, x) - analytic.log_prob(mixture, x)) / num_dims
    np.testing.assert_array_less(abs(error), 1e-4)


@pytest.mark.parametrize("name", PATHS)
def test_samples_by_adaptive_steps_are_as_near_as_they_are_told_to_be(name):
    """The flow of a Gaussian takes z to mean + z scale, up to what is left at the ends of the path.

    Errors of examples with steps of their own are those of `NEAR`; the largest of a batch that shares its steps is at
    most four times as much.
    """
    (near, fall), path = NEAR[name], PATHS[name]
    mean, scale = 0.7, 0.6

    def score(params, x, t, cond=None):
        alpha, sigma = paths.scales(path, t, x)
        return -(x - alpha * mean) / (alpha**2 * scale**2 + sigma**2)

    z = jax.random.normal(KEY, (50, 3))
    model = exact_model(analytic.mixture(3), path)._replace(score=score)
    x_max = path.sigma(path.t_max) * z
    exact = analytic.gaussian_flow(path, mean, scale**2, x_max, path.t_max, path.t_min) / path.alpha(path.t_min)

    def flow(tolerance):
        return probability_flow(model, path, solver=dormand_prince(rtol=tolerance, atol=tolerance))

    shared = jax.jit(lambda tolerance: flow(tolerance).decode((), z))
    own = jax.jit(lambda tolerance: jax.vmap(lambda z: flow(tolerance).decode((), z[None])[0])(z))
    errors = []
    for tolerance in (1e-2, 1e-3, 1e-4):
        np.testing.assert_array_equal(flow(tolerance).sample((), KEY, 50), flow(tolerance).decode((), z))
        assert abs(shared(tolerance) - exact).max() < 4 * near * tolerance
        errors.append(float(jnp.sqrt(((own(tolerance) - exact) ** 2).mean())))
        assert errors[-1] < near * tolerance
    assert errors[2] < errors[0] / fall


def test_error_falls_with_the_number_of_steps():
    """Of fourth order, and that of the adaptive solver in proportion to its tolerance, or more."""
    mixture, path = analytic.mixture(), paths.cosine(margin=3e-4)
    x, model = jnp.asarray(analytic.sample(mixture, 0, 64)), exact_model(mixture, path)
    found = [jax.jit(probability_flow(model, path, num_steps=num).log_prob)((), x) for num in (10, 20, 40)]

    @jax.jit
    def by_adaptive_steps(tolerance):
        return probability_flow(model, path, solver=dormand_prince(rtol=tolerance, atol=tolerance)).log_prob((), x)

    found += [by_adaptive_steps(tolerance) for tolerance in (1e-2, 1e-4)]
    errors = [abs(values - analytic.log_prob(mixture, x)).max() for values in found]
    assert abs(np.polyfit(range(3), np.log2(errors[:3]), 1)[0] + 4) < 0.25, errors
    assert errors[4] < errors[3] / 30
    assert errors[4] < 1e-3


def test_hutchinson_is_unbiased_and_called_a_bound():
    """With few probes, the mean over many draws equals the exact log-density; the field is `elbo`, for it is noisy."""
    mixture, path = analytic.mixture(3), paths.cosine()
    flow = probability_flow(exact_model(mixture, path), path, num_steps=50, num_probes=2)
    assert flow.log_prob is None
    x = jnp.repeat(jnp.asarray(analytic.sample(mixture, 0, 2)), 4000, 0)
    draws = jax.jit(flow.elbo)((), KEY, x).reshape(2, 4000)
    exact = analytic.log_prob(mixture, x[::4000])
    np.testing.assert_array_less(abs(draws.mean(1) - exact), 4 * draws.std(1) / np.sqrt(4000) + 2e-3)
    assert (draws.std(1) > 0.01).all()


@pytest.mark.parametrize("solver", [{}, {"solver": dormand_prince(rtol=1e-5)}], ids=["fixed", "adaptive"])
def test_encode_and_decode_are_inverse_and_samples_fit(solver):
    """Latents of data are standard normal; samples have the mixture's mean log-density."""
    mixture, path = analytic.mixture(), paths.cosine()
    flow = probability_flow(exact_model(mixture, path), path, **solver)
    x = jnp.asarray(analytic.sample(mixture, 0, 2000))
    latent, again, samples = jax.jit(
        lambda x: (z := flow.encode((), KEY, x), flow.decode((), z), flow.sample((), KEY, 2000))
    )(x)
    np.testing.assert_allclose(again, x, atol=2e-3)
    np.testing.assert_allclose(jnp.cov(latent.T), np.eye(2), atol=0.1)
    ours, theirs = analytic.log_prob(mixture, samples), analytic.log_prob(mixture, x)
    assert abs(ours.mean() - theirs.mean()) < 4 * np.sqrt((ours.var() + theirs.var()) / 2000)


def test_integer_data_in_one_unit():
    """Through scaling and dequantisation, ln P of integers: the mixture's mass in the cell, by a fine sum."""
    mixture, path, levels = analytic.mixture(1), paths.cosine(), 8
    flow = probability_flow(exact_model(mixture, path), path, num_steps=50)
    model = dequantize(pull_back(flow, affine(-2.0, 4.0)), levels)
    x = jnp.repeat(jnp.array([[3], [5]]), 2000, 0)
    weights = jnp.exp(jax.jit(model.log_weight)((), KEY, x)).reshape(2, 2000)
    width, fine = 4 / levels, (np.arange(1000) + 0.5) / 1000
    points = -2 + width * (np.array([[3], [5]]) + fine)
    mass = np.exp(analytic.log_prob(mixture, points.reshape(-1, 1))).reshape(2, 1000).mean(1) * width
    np.testing.assert_array_less(abs(weights.mean(1) - mass), 4 * weights.std(1) / np.sqrt(2000) + 1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: probability_flow(ppca(2, 1), paths.cosine()), "a score"),
        (lambda: probability_flow(exact_model(analytic.mixture(), paths.cosine()), paths.cosine(), num_steps=0), "0"),
        (
            lambda: probability_flow(
                exact_model(analytic.mixture(), paths.cosine()), paths.cosine(), grid=lambda path, num: jnp.ones(num)
            ),
            "falling",
        ),
        (
            lambda: probability_flow(exact_model(analytic.mixture(), paths.cosine()), paths.cosine(), num_probes=-1),
            "-1",
        ),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
