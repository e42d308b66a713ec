"""Flows of vectors against the Jacobian of their own encoder by autodiff, against scipy, and against known entropies.

That each integrates to one on the plane, for every label, is shown by the conformance tests.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxgen.core import init_state, train_step
from jaxgen.models.flows.ffjord import ffjord
from jaxgen.models.flows.iaf import iaf
from jaxgen.models.flows.maf import maf
from jaxgen.models.flows.neural_spline_flow import neural_spline_flow, neural_spline_flow_autoregressive
from jaxgen.models.flows.nice import nice
from jaxgen.models.flows.real_nvp import real_nvp
from jaxgen.models.flows.residual_flow import residual_flow
from jaxgen.nets.time import TimeMLP, slow_features
from jaxgen.samplers.adaptive import dormand_prince
from jaxgen.types import Batch
from tests.bijecting import perturbed

KEY = jax.random.key(0)
NUM_CLASSES = 2
SMALL = {"num_layers": 2, "features": (8,), "num_classes": NUM_CLASSES}
NET = TimeMLP((8,), NUM_CLASSES, 4, embed=slow_features)
MODELS = {
    "real_nvp": real_nvp(3, **SMALL),
    "nice": nice(3, **SMALL),
    "maf": maf(3, **SMALL),
    "iaf": iaf(3, **SMALL),
    "neural_spline_flow": neural_spline_flow(3, num_bins=4, **SMALL),
    "neural_spline_flow_autoregressive": neural_spline_flow_autoregressive(3, num_bins=4, **SMALL),
    "ffjord": ffjord(NET, (3,)),
    "residual_flow": residual_flow(3, **SMALL),
}


@functools.cache
def prepared(name):
    """Parameters far from a fresh start, data, and vectors as the condition."""
    x = jax.random.normal(KEY, (6, 3))
    cond = jax.random.normal(jax.random.key(1), (6, NUM_CLASSES))
    params = jax.jit(lambda: perturbed(MODELS[name].init(jax.random.key(2), Batch(x, cond))[0]))()
    return params, x, cond


@pytest.mark.parametrize("name", MODELS)
def test_density_given_a_vector_is_that_of_the_jacobian_by_autodiff_and_decoding_undoes_encoding(name):
    """ln N(z; 0, I) by scipy plus slogdet of the Jacobian of `encode`; x within 1e-4 of decoded z."""
    model, (params, x, cond) = MODELS[name], prepared(name)

    def encode(x, c):
        return model.encode(params, KEY, x[None], c[None])[0]

    @jax.jit
    def both(x, cond):
        z = jax.vmap(encode)(x, cond)
        return z, jax.vmap(jax.jacrev(encode))(x, cond), model.log_prob(params, x, cond), model.decode(params, z, cond)

    z, jacobian, log_prob, decoded = both(x, cond)
    expected = stats.norm.logpdf(z).sum(-1) + np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(decoded, x, atol=1e-4)
    assert np.abs(z - x).max() > 0.1
    assert np.abs(both(x, cond[::-1])[2] - log_prob).max() > 1e-2


def banana(key, num):
    """x_1 ~ N(0, 1), x_2 = x_1^2 + 0.3 e; its entropy is ln(2 pi e) + ln 0.3."""
    noise = jax.random.normal(key, (num, 2))
    return Batch(jnp.stack([noise[:, 0], noise[:, 0] ** 2 + 0.3 * noise[:, 1]], -1))


TRAINED = {
    "neural_spline_flow": (neural_spline_flow(2, num_layers=2, features=(16,)), 400),
    "maf": (maf(2, num_layers=2, features=(32,)), 400),
    "residual_flow": (residual_flow(2, num_layers=4, features=(16,)), 400),
    "ffjord": (ffjord(TimeMLP((32,), embed=slow_features), (2,), num_steps=4), 400),
    "nice": (nice(2, num_layers=2, features=(16, 16)), 400),
    "iaf": (iaf(2, num_layers=2, features=(32,)), 400),
}
LOSS_ABOVE_ENTROPY = {
    "neural_spline_flow": 0.05,
    "maf": 0.05,
    "residual_flow": 0.6,
    "ffjord": 0.3,
    "nice": 0.05,
    "iaf": 0.07,
}
"""What 400 steps leave of each; a Gaussian fit of the banana lies 1.6 nats above its entropy."""


@pytest.mark.parametrize("name", TRAINED)
def test_training_comes_near_the_entropy_of_a_banana(name):
    """And not below it: the exact density of held-out points, whatever the loss estimated."""
    entropy = np.log(2 * np.pi * np.e) + np.log(0.3)
    (model, num_steps), tx = TRAINED[name], optax.adam(optax.cosine_decay_schedule(1e-2, 400))
    step = train_step(model, tx)

    @jax.jit
    def train():
        state = init_state(model, tx, KEY, banana(KEY, 256))
        keys = jax.random.split(KEY, num_steps)
        state, _ = jax.lax.scan(lambda s, k: (step(s, banana(k, 128))[0], None), state, keys)
        return -model.log_prob(state.params, banana(jax.random.key(9), 10_000).x).mean()

    assert entropy - 0.04 < train() < entropy + LOSS_ABOVE_ENTROPY[name]


def test_the_loss_of_ffjord_is_that_of_the_exact_divergence_and_hutchinsons_has_it_as_its_mean():
    """Value and gradient: with `num_probes=0` those of the mean -ln p; of 1000 keys' estimates the mean, by errors."""
    params, x, cond = prepared("ffjord")
    loss_of = lambda model: lambda params, key: model.loss(params, (), key, Batch(x, cond))[0]  # noqa: E731
    exact = jax.jit(jax.value_and_grad(lambda params: -MODELS["ffjord"].log_prob(params, x, cond).mean()))(params)
    found = jax.jit(jax.value_and_grad(loss_of(ffjord(NET, (3,), num_probes=0))))(params, KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, exact)
    estimates = jax.jit(jax.vmap(jax.value_and_grad(loss_of(MODELS["ffjord"])), (None, 0)))
    for draws, mean in zip(*map(jax.tree.leaves, (estimates(params, jax.random.split(KEY, 1000)), exact)), strict=True):
        draws = np.asarray(draws, np.float64)
        error = draws.std(0) / np.sqrt(1000)
        np.testing.assert_array_less(abs(draws.mean(0) - mean), 4.5 * error + 1e-5)
        assert error.max() > 1e-4


@pytest.mark.parametrize("name", ["ffjord", "residual_flow"])
def test_the_mean_of_the_bound_is_the_log_probability(name):
    """Unbiased estimates: the mean of 4000 within 4.5 standard errors, against the exact value."""
    model, (params, x, cond) = MODELS[name], prepared(name)
    exact = jax.jit(model.log_prob)(params, x, cond)
    keys = jax.random.split(jax.random.key(3), 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: model.elbo(params, key, x, cond)))(keys), np.float64)
    assert np.abs((draws.mean(0) - exact) / (draws.std(0) / np.sqrt(4000))).max() < 4.5
    assert draws.std(0).min() > 1e-3


def test_likelihoods_of_ffjord_by_adaptive_steps_are_those_of_many_fixed_ones():
    params, x, cond = prepared("ffjord")
    fixed, adaptive = ffjord(NET, (3,), num_steps=40), ffjord(NET, (3,), solver=dormand_prince(rtol=1e-6, atol=1e-6))
    for field in ("log_prob", "decode"):
        found = [jax.jit(getattr(model, field))(params, x, cond) for model in (fixed, adaptive)]
        np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)


def test_computing_steps_again_gives_the_same_gradient_in_less_memory():
    """Of 16 steps, against the plain form: gradients equal, and temporary memory of a few steps in place of 16."""
    x, net = jax.random.normal(KEY, (64, 3)), TimeMLP((64, 64), embed=slow_features)
    plain, again = (ffjord(net, (3,), num_steps=16, remat=remat) for remat in (False, True))
    params = jax.jit(lambda: perturbed(plain.init(KEY, Batch(x))[0]))()
    found, memory = [], []
    for model in (plain, again):
        gradient = jax.grad(lambda params, model=model: model.loss(params, (), KEY, Batch(x))[0])
        compiled = jax.jit(gradient).lower(params).compile()
        found.append(compiled(params))
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)
    assert memory[1] < 0.4 * memory[0]


def test_a_flow_of_one_dimension_has_the_density_of_its_derivative():
    """Autoregressive flows need no second dimension; ln p(x) = ln N(z) + ln dz/dx by autodiff."""
    model, x = neural_spline_flow_autoregressive(1, num_layers=1, features=(4,)), jnp.linspace(-3, 3, 9)[:, None]
    params = jax.jit(lambda: perturbed(model.init(KEY, Batch(x))[0]))()
    encode = lambda x: model.encode(params, KEY, x[None, None])[0, 0]  # noqa: E731
    z, slope = jax.jit(jax.vmap(jax.value_and_grad(encode)))(x[:, 0])
    np.testing.assert_allclose(model.log_prob(params, x), stats.norm.logpdf(z) + np.log(slope), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nice(1), "got 1"),
        (lambda: maf(0), "got 0"),
        (lambda: iaf(2, num_layers=0), "got 0"),
        (lambda: neural_spline_flow(2, bound=-1.0), "-1.0"),
        (lambda: neural_spline_flow_autoregressive(2, num_bins=0), "got 0"),
        (lambda: ffjord(NET, (2,), num_steps=0), "got 0"),
        (lambda: residual_flow(2, limit=1.0), "1.0"),
        (lambda: maf(2, num_classes=2).init(KEY, Batch(jnp.eye(2), jnp.ones((2, 3)))), "width 2"),
        (lambda: maf(2, num_classes=2).init(KEY, Batch(jnp.eye(2))), "cond=None"),
    ],
)
def test_bad_values_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
