"""Glow against the Jacobian of its own encoder by autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.bijections import rational_quadratic_spline, shift
from jaxgen.models.flows.glow import glow
from jaxgen.types import Batch
from tests.bijecting import perturbed

KEY = jax.random.key(0)
NUM_CLASSES = 2
SMALL = {"num_steps": 1, "features": 4, "num_classes": NUM_CLASSES}
MODELS = {
    "affine": glow((4, 4, 1), **SMALL),
    "spline": glow((4, 4, 1), elementwise=rational_quadratic_spline(4, bound=2.0), **SMALL),
    "additive": glow((4, 4, 1), elementwise=shift(), **SMALL),
}


@pytest.mark.parametrize("name", MODELS)
def test_density_of_images_is_that_of_the_jacobian_by_autodiff(name):
    """Logit, steps of two scales, the learned prior and the factoring-out; decoded latents are the images to 1e-4."""
    model = MODELS[name]
    x, cond = jax.random.uniform(KEY, (4, 4, 4, 1)), jnp.arange(4) % NUM_CLASSES
    params = jax.jit(lambda: perturbed(model.init(jax.random.key(1), Batch(x, cond))[0], 0.2))()

    def encode(x, c):
        return model.encode(params, KEY, x.reshape(1, 4, 4, 1), c[None])[0].reshape(-1)

    @jax.jit
    def both(x, cond):
        z = model.encode(params, KEY, x, cond)
        jacobian = jax.vmap(jax.jacrev(encode))(x.reshape(4, 16), cond)
        return z, jacobian, model.log_prob(params, x, cond), model.decode(params, z, cond)

    z, jacobian, log_prob, decoded = both(x, cond)
    assert z.shape == x.shape
    expected = stats.norm.logpdf(z).sum((1, 2, 3)) + np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(decoded, x, atol=1e-4)


def test_a_fresh_glow_standardises_its_first_batch():
    x = jax.random.uniform(KEY, (256, 4, 4, 1)) ** 2
    model = glow((4, 4, 1), num_scales=1, num_steps=1, features=4)
    z = jax.jit(lambda: model.encode(model.init(KEY, Batch(x))[0], KEY, x))()
    assert abs(z.mean()) < 1e-3
    assert z.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: glow((6, 8, 1)), "6, 8, 1"),
        (lambda: glow((8, 8, 1), num_scales=0), "num_scales 0"),
        (lambda: glow((8, 8)), "8, 8"),
        (lambda: glow((8, 8, 1), num_steps=0), "got 0"),
        (lambda: glow((8, 8, 1), alpha=0.5), "0.5"),
    ],
)
def test_bad_values_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
