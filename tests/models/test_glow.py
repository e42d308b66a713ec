"""Glow against the Jacobian of its own encoder by autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen.bijections import rational_quadratic_spline
from jaxgen.models.flows.glow import glow
from jaxgen.types import Batch
from tests.bijecting import perturbed

KEY = jax.random.key(0)
NUM_CLASSES = 2
SMALL = {"features": 4, "num_classes": NUM_CLASSES}
SPLINE = rational_quadratic_spline(4, bound=2.0)
MODELS = {
    "affine": glow((4, 4, 1), num_steps=2, **SMALL),
    "loop": glow((2, 2, 1), num_steps=2, num_scales=1, unroll=1, **SMALL),
    "spline": glow((2, 2, 1), num_steps=1, num_scales=1, elementwise=SPLINE, **SMALL),
}


@pytest.mark.parametrize(
    ("name", "given"), [("affine", "labels"), ("affine", "vectors"), ("loop", "labels"), ("spline", "labels")]
)
def test_density_of_images_is_that_of_the_jacobian_by_autodiff(name, given):
    """Logit, steps of two scales, the learned prior and the factoring-out; decoded latents are the images to 1e-4.

    Of two steps at each scale, with parameters of their own, written out or as a loop; of splines one.
    """
    model, side = MODELS[name], {"affine": 4, "loop": 2, "spline": 2}[name]
    x = jax.random.uniform(KEY, (4, side, side, 1))
    cond = jnp.arange(4) % NUM_CLASSES if given == "labels" else jax.random.normal(KEY, (4, NUM_CLASSES))
    params = jax.jit(lambda: perturbed(model.init(jax.random.key(1), Batch(x, cond))[0], 0.2))()

    def encode(x):
        return model.encode(params, KEY, x, cond[:1])

    @jax.jit
    def both(x):
        (z, back), log_prob = jax.vjp(encode, x), model.log_prob(params, x, cond[:1])
        (jacobian,) = jax.vmap(back)(jnp.eye(x.size).reshape(-1, *x.shape))
        return z, jacobian.reshape(x.size, x.size), log_prob, model.decode(params, z, cond[:1])

    z, jacobian, log_prob, decoded = both(x[:1])
    assert z.shape == (1, side, side, 1)
    expected = stats.norm.logpdf(z).sum() + np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(decoded, x[:1], atol=1e-4)
    other = jax.jit(model.log_prob)(params, x[:1], cond[1:2])
    assert np.abs(other - log_prob).max() > 1e-3


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
