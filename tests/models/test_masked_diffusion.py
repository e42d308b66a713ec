"""Masked diffusion of three tokens of three levels, against enumeration of a table of their joint probabilities."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import stats

from jaxgen.core import init_state, train_step
from jaxgen.models.diffusion.masked_diffusion import masked_diffusion
from jaxgen.nets.time import TimeMLP
from jaxgen.nets.tokens import TokenNet
from jaxgen.paths import masking
from jaxgen.types import Batch

KEY, LEVELS, LENGTH = jax.random.key(0), 3, 3
POINTS = np.array(list(itertools.product(range(LEVELS), repeat=LENGTH)))
MASKINGS = {"linear": masking.linear, "cosine": masking.cosine, "polynomial": masking.polynomial(2.0)}
every_masking = pytest.mark.parametrize("share", MASKINGS.values(), ids=MASKINGS)


def chain():
    """Joint probabilities `[3, 3, 3]` of a Markov chain."""
    rng = np.random.default_rng(0)
    first, transition = rng.dirichlet(3 * np.ones(LEVELS)), rng.dirichlet(3 * np.ones(LEVELS), LEVELS)
    return np.einsum("a,ab,bc->abc", first, transition, transition)


def conditionals(joint):
    """Logits `[4, 4, 4, 3, 3]`: ln p(x_i | the tokens that are not masked), by sums over the table."""
    table = np.zeros((LEVELS + 1,) * LENGTH + (LENGTH, LEVELS))
    for state in itertools.product(range(LEVELS + 1), repeat=LENGTH):
        for i in range(LENGTH):
            seen = [slice(None) if j == i or s == LEVELS else slice(s, s + 1) for j, s in enumerate(state)]
            weights = joint[tuple(seen)].sum(tuple(j for j in range(LENGTH) if j != i))
            table[(*state, i)] = np.log(weights / weights.sum())
    return table.astype(np.float32)


class Table(nn.Module):
    """A network that looks its logits up, and has them as its parameters."""

    @nn.compact
    def __call__(self, x, level, cond=None):
        del level, cond
        table = self.param("table", nn.initializers.normal(), (LEVELS + 1,) * LENGTH + (LENGTH, LEVELS))
        return table[x[:, 0], x[:, 1], x[:, 2]]


def model(**options):
    return masked_diffusion(Table(), (LENGTH,), LEVELS, **options)


def exact():
    return {"table": jnp.asarray(conditionals(chain()))}


def wrong():
    return {"table": jax.random.normal(jax.random.key(3), (LEVELS + 1,) * LENGTH + (LENGTH, LEVELS))}


def normalised(params):
    return np.asarray(jax.nn.log_softmax(params["table"]), np.float64)


def in_order(logits, x, order):
    """ln of the product of p(x_i | the tokens before i in the order), from normalised logits."""
    state, total = [LEVELS] * LENGTH, 0.0
    for i in order:
        total += logits[(*state, i, x[i])]
        state[i] = x[i]
    return total


def any_order(logits, x):
    """The mean of `in_order` over all orders: the bound in continuous time."""
    orders = itertools.permutations(range(LENGTH))
    return sum(in_order(logits, x, order) for order in orders) / math.factorial(LENGTH)


def in_steps(logits, x, share, num_steps):
    """The bound of a sampler of T steps, as a sum over every path of masks: q(path | x) ln (p(x, path) / q(path | x)).

    A path says in which step each token is shown, from a state where those of later steps of the way to noise are seen;
    tokens that are shown together are drawn independently.
    """
    shares, total = np.asarray(share(jnp.arange(num_steps + 1) / num_steps), np.float64), 0.0
    for path in itertools.product(range(1, num_steps + 1), repeat=LENGTH):  # token i is masked from time path[i] / T on
        probability = np.prod([shares[k] - shares[k - 1] for k in path])
        states = [tuple(x[j] if path[j] > k else LEVELS for j in range(LENGTH)) for k in path]
        total += probability * sum(logits[(*states[i], i, x[i])] for i in range(LENGTH))
    return total


def assert_mean(draws, expected):
    """The mean of draws `[k, n]` is the expected one, at each point and over all, within four standard errors."""
    draws, expected = np.asarray(draws, np.float64), np.asarray(expected)
    for found, truth, largest in ((draws, expected, 0.1), (draws.mean(1), expected.mean(), 0.01)):
        error = found.std(0) / np.sqrt(len(draws))
        assert np.all(error < largest * abs(truth))
        np.testing.assert_array_less(abs(found.mean(0) - truth), 4 * error + 1e-5)


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
    step = train_step(net_model, tx)

    @jax.jit
    def run(key):
        state = init_state(net_model, tx, key, draw(key))
        advance = lambda state, key: (step(state, draw(key))[0], None)  # noqa: E731
        return jax.lax.scan(advance, state, jax.random.split(key, 600))[0].params

    params, batch = run(KEY), draw(jax.random.key(5), 10_000)
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
    ):
        with pytest.raises(ValueError, match=message):
            model(**options)
    with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
        masked_diffusion(Table(), (LENGTH,), 1)
    with pytest.raises(ValueError, match="exponent must be positive, got 0"):
        masking.polynomial(0.0)
    with pytest.raises(ValueError, match="expects integers, got data of type float32"):
        model().elbo(exact(), KEY, jnp.zeros((2, LENGTH)))
