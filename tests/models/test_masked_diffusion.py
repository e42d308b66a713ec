"""Masked diffusion of three tokens of three levels, against enumeration of a table of their joint probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxgen.models.diffusion.masked_diffusion import masked_diffusion
from jaxgen.nets.time import TimeMLP
from jaxgen.nets.tokens import TokenNet
from jaxgen.paths import masking
from jaxgen.types import Batch
from tests.tables import (
    LENGTH,
    LEVELS,
    POINTS,
    Table,
    any_order,
    assert_mean,
    chain,
    exact,
    in_steps,
    normalised,
    wrong,
)
from tests.training import fit, start

KEY = jax.random.key(0)
MASKINGS = {"linear": masking.linear, "cosine": masking.cosine, "polynomial": masking.polynomial(2.0)}
every_masking = pytest.mark.parametrize("share", MASKINGS.values(), ids=MASKINGS)


def model(**options):
    return masked_diffusion(Table(), (LENGTH,), LEVELS, **options)


def draws(model, params, num=4000):
    """Many draws of the bound of every point `[num, 27]`."""
    points = jnp.asarray(np.tile(POINTS, (num, 1)))
    return np.asarray(jax.jit(model.elbo)(params, KEY, points)).reshape(num, -1)


@every_masking
def test_bound_of_the_exact_conditionals_is_the_likelihood(share):
    """Against the table: with the exact conditionals every order gives ln p(x), whatever the masking."""
    assert_mean(draws(model(masking=share), exact()), np.log(chain()).ravel())


@every_masking
def test_bound_of_any_network_is_the_mean_over_orders(share):
    """Against enumeration of the six orders, for conditionals that fit no joint distribution."""
    params = wrong()
    expected = [any_order(normalised(params), x) for x in POINTS]
    assert_mean(draws(model(masking=share), params), expected)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_bound_of_few_steps(num_steps):
    """Against a sum over every path of masks."""
    params = wrong()
    found = draws(model(masking=masking.cosine, num_bound_steps=num_steps), params)
    assert_mean(found, [in_steps(normalised(params), x, masking.cosine, num_steps) for x in POINTS])


def test_bound_of_few_steps_of_the_exact_conditionals_is_below_the_likelihood():
    """In the mean over the data the gap is a divergence, which falls as the steps grow finer."""
    logits, joint = normalised(exact()), chain().ravel()
    bounds = [np.array([in_steps(logits, x, masking.linear, k) for x in POINTS]) for k in (1, 2, 4)]
    gaps = [joint @ (np.log(joint) - bound) for bound in bounds]
    assert gaps[0] > gaps[1] > gaps[2] > 0


def test_gradient_of_the_loss():
    """Against autodiff of the enumerated bound, with the table's logits as parameters."""
    params, x = wrong(), POINTS[::4]
    share = masking.polynomial(2.0)

    def enumerated(params):
        return -sum(any_order(jax.nn.log_softmax(params["table"]), point) for point in x) / len(x)

    truth = jax.jit(jax.grad(enumerated))(params)["table"]
    batch = Batch(jnp.asarray(np.tile(x, (500, 1))))
    loss = lambda params, key: model(masking=share).loss(params, (), key, batch)[0]  # noqa: E731
    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, jax.random.split(KEY, 100))["table"]
    error = grads.std(0) / np.sqrt(100)
    np.testing.assert_array_less(abs(grads.mean(0) - truth), 5 * error + 1e-5)
    assert abs(truth).max() > 20 * error.max()


@pytest.mark.parametrize(("num_steps", "share"), [(1, masking.linear), (50, masking.cosine)])
def test_frequencies_of_samples(num_steps, share):
    """Chi-square against the table, or for one step against the product of its margins."""
    joint = chain()
    if num_steps == 1:
        a, b, c = (joint.sum(axes) for axes in ((1, 2), (0, 2), (0, 1)))
        joint = np.einsum("a,b,c->abc", a, b, c)
    x = jax.jit(lambda key: model(masking=share, num_steps=num_steps).sample(exact(), key, 5000))(KEY)
    counts = np.bincount(np.asarray(x) @ [9, 3, 1], minlength=27)
    assert stats.chisquare(counts, 5000 * joint.ravel() / joint.sum()).pvalue > 1e-3


def test_a_network_learns_two_classes():
    """Training reaches the entropy of the data of each class, and samples follow the label."""
    joint = np.stack([chain(), chain().T.copy()])
    tables = jnp.log(joint.reshape(2, -1))
    net = TokenNet(TimeMLP((64,), num_classes=2), LEVELS, LEVELS + 1, width=8)
    net_model = masked_diffusion(net, (LENGTH,), LEVELS, masking=masking.polynomial(2.0), num_steps=30)

    def draw(key, num=256):
        label_key, data_key = jax.random.split(key)
        cond = jax.random.randint(label_key, (num,), 0, 2)
        return Batch(jnp.asarray(POINTS)[jax.random.categorical(data_key, tables[cond])], cond)

    tx = optax.adam(optax.cosine_decay_schedule(1e-2, 600))
    params = fit(net_model, tx, draw, start(net_model, tx, draw), 600).params
    batch = draw(jax.random.key(5), 10_000)
    bound = jax.jit(net_model.elbo)(params, KEY, *batch)
    entropy = -(joint * np.log(joint)).sum() / 2
    assert -entropy - 0.05 < bound.mean() < -entropy + 4 * bound.std() / np.sqrt(10_000)
    cond = jnp.repeat(jnp.arange(2), 4000)
    x = jax.jit(lambda key: net_model.sample(params, key, 8000, cond))(KEY).reshape(2, 4000, 3)
    for label in range(2):
        frequencies = np.bincount(np.asarray(x[label]) @ [9, 3, 1], minlength=27) / 4000
        assert abs(frequencies - joint[label].ravel()).sum() < 0.15


@pytest.mark.parametrize("share", [*MASKINGS.values(), masking.polynomial(0.5)])
def test_maskings_begin_and_end(share):
    """m(0) = 0 and m(1) = 1, rising; the rate against finite differences of its logarithm."""
    t = jnp.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(share(jnp.array([0.0, 1.0])), [0, 1], atol=1e-7)
    assert np.all(np.diff(share(t)) > 0)
    slope = (np.log(share(t + 1e-2)) - np.log(share(t - 1e-2))) / 2e-2
    np.testing.assert_allclose(masking.rate(share, t), slope, rtol=0.02)


def test_cosine_masking_is_that_of_the_paper():
    t = np.linspace(0, 1, 11)
    np.testing.assert_allclose(1 - masking.cosine(jnp.asarray(t)), 1 - np.cos(np.pi / 2 * (1 - t)), atol=1e-6)
    np.testing.assert_allclose(masking.cosine_grid(10), np.cos(np.pi / 2 * (1 - t))[::-1], atol=1e-6)


def test_wrong_numbers_are_named():
    for options, message in (
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"num_bound_times": 0}, "num_bound_times must be at least 1, got 0"),
        ({"num_bound_steps": 0}, "num_bound_steps must be at least 1, got 0"),
        ({"grid": lambda num_steps: jnp.array([0.0, 1.0])}, r"expected a grid of falling times, got \[0\. 1\.\]"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**options)
    with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
        masked_diffusion(Table(), (LENGTH,), 1)
    with pytest.raises(ValueError, match="exponent must be positive, got 0"):
        masking.polynomial(0.0)
    with pytest.raises(ValueError, match="expects integers, got data of type float32"):
        model().elbo(exact(), KEY, jnp.zeros((2, LENGTH)))
