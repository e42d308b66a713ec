"""A score that is known in closed form, sampled by one stepper and another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.models.classical.ppca import ppca
from jaxgen.samplers.ddpm import ddpm
from jaxgen.transforms import resample
from tests.analytic import gaussian_denoiser

KEY, PATH = jax.random.key(0), paths.cosine()
MEAN, VARIANCE = jnp.array([0.5, -1.0]), jnp.array([0.25, 2.0])


def exact_model():
    """The score of the noised N(MEAN, diag VARIANCE), without a sampler of its own."""
    denoise = gaussian_denoiser(PATH, MEAN, VARIANCE)
    return Model(
        init=lambda key, batch: ((), ()),
        loss=lambda params, carry, key, batch: (jnp.zeros(()), (carry, {})),
        sample=lambda params, key, num, cond=None: jnp.zeros((num, 2)),
        score=lambda params, x, t, cond=None: paths.SCORE.from_x0(PATH, x, t, denoise(x, t)),
    )


@pytest.mark.parametrize(("stepper", "num_steps"), [(None, 100), (ddpm(), 400)], ids=["heun", "ddpm"])
def test_samples_have_the_moments(stepper, num_steps):
    """Those of the data: Heun's method is second order, ancestral sampling first."""
    model = resample(exact_model(), PATH, stepper=stepper, num_steps=num_steps)
    x = jax.jit(lambda key: model.sample((), key, 20_000))(KEY)
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.04)
    np.testing.assert_allclose(x.var(0), VARIANCE, rtol=0.05)


def test_latents_of_a_gaussian_are_standardised():
    """The flow of a Gaussian keeps (x - mean) / standard deviation, and `decode` takes it back."""
    model = resample(exact_model(), PATH, grid=paths.log_snr_grid, num_steps=100)
    x = MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(KEY, (50, 2))
    latent = jax.jit(lambda x: model.encode((), KEY, x))(x)
    np.testing.assert_allclose(latent, (x - MEAN) / jnp.sqrt(VARIANCE), atol=0.02)
    np.testing.assert_allclose(jax.jit(lambda z: model.decode((), z))(latent), x, atol=0.01)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: resample(ppca(2, 1), PATH), "a score"),
        (lambda: resample(exact_model(), PATH, num_steps=0), "got 0"),
        (lambda: resample(exact_model(), PATH, grid=lambda path, num: jnp.linspace(0, 1, num), num_steps=3), "0.5"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
