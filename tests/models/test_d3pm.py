"""D3PM against sums over every path of one token of three levels, and against masked diffusion of three tokens."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import stats

from jaxgen.models.diffusion.d3pm import d3pm
from jaxgen.nets.time import TimeMLP
from jaxgen.nets.tokens import TokenNet
from jaxgen.paths import masking, transitions
from jaxgen.types import Batch
from tests import tables
from tests.tables import LENGTH, LEVELS, POINTS, Table, any_order, assert_mean, in_steps, normalised, wrong
from tests.training import fit, start

KEY, STEPS = jax.random.key(0), 3
MARGIN = np.array([0.2, 0.5, 0.3])
CHAINS = {
    "absorbing": transitions.absorbing(LEVELS, STEPS, masking=masking.cosine),
    "uniform": transitions.uniform(LEVELS, STEPS),
    "gaussian": transitions.gaussian(LEVELS, STEPS, beta_min=0.5, beta_max=4.0),
}
every_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


def matrices(chain):
    """Q_1 .. Q_T `[T, K, K]`."""
    return np.asarray(chain.step(jnp.arange(1, chain.num_steps + 1)), np.float64)


@functools.cache
def network(num_states, num_steps):
    class PerStep(nn.Module):
        """Logits of one token, looked up by step and state."""

        @nn.compact
        def __call__(self, x, level, cond=None):
            del cond
            table = self.param("table", nn.initializers.normal(1.0), (num_steps + 1, num_states, LEVELS))
            return table[jnp.round(level * num_steps).astype(jnp.int32)[:, None], x]

    return PerStep()


def model(chain, **options):
    return d3pm(network(chain.num_states, chain.num_steps), (1,), chain, **options)


def joint_of_start_and_step(chain, t):
    """P(x_{t-1} = k, x_t = j | x_0 = i) `[i, k, j]`, by multiplying matrices."""
    steps = matrices(chain)
    before = np.linalg.multi_dot([np.eye(chain.num_states), *steps[: t - 1], np.eye(chain.num_states)])[:LEVELS]
    return before[:, :, None] * steps[t - 1][None]


def denoisers(chain, params):
    """The network's distributions of x_0 `[T, j, i]`, those from which x_t cannot come left out."""
    table = np.exp(np.asarray(params["table"], np.float64))[1:]
    for t in range(1, chain.num_steps + 1):
        table[t - 1] *= joint_of_start_and_step(chain, t).sum(1).T > 0
    return table / np.maximum(table.sum(-1, keepdims=True), 1e-300)


def reversals(chain, params):
    """p(x_{t-1} = k | x_t = j) `[T, j, k]`, as a mixture of what Bayes' rule gives for each x_0."""
    found = []
    for t, mu in enumerate(denoisers(chain, params), start=1):
        joint = joint_of_start_and_step(chain, t)
        posterior = joint / np.maximum(joint.sum(1, keepdims=True), 1e-300)
        found.append(np.einsum("ji,ikj->jk", mu, posterior))
    return np.array(found)


def by_paths(chain, params, x0):
    """The bound as a sum over paths x_1 .. x_T: q(path | x_0) ln (p(x_0, path) / q(path | x_0))."""
    forward, backward, limit = matrices(chain), reversals(chain, params), np.asarray(chain.limit())
    total = 0.0
    for path in itertools.product(range(chain.num_states), repeat=chain.num_steps):
        states = (x0, *path)
        q = np.prod([forward[t, states[t], states[t + 1]] for t in range(chain.num_steps)])
        if q > 0:
            p = limit[path[-1]] * np.prod([backward[t, states[t + 1], states[t]] for t in range(chain.num_steps)])
            total += q * (np.log(p) - np.log(q))
    return total


def exact(chain):
    """Parameters that make the network p(x_0 | x_t) for x_0 of the distribution MARGIN."""
    joints = [MARGIN[:, None] * joint_of_start_and_step(chain, t).sum(1) for t in range(1, chain.num_steps + 1)]
    table = np.log(np.maximum(np.array(joints).transpose(0, 2, 1), 1e-12))
    return {"table": jnp.asarray(np.concatenate([table[:1], table]), jnp.float32)}


def random(chain):
    return {"table": jax.random.normal(jax.random.key(3), (chain.num_steps + 1, chain.num_states, LEVELS))}


def draws(model, params, points, num):
    found = jax.jit(model.elbo)(params, KEY, jnp.asarray(np.tile(points, (num, 1))))
    return np.asarray(found).reshape(num, -1)


@every_chain
def test_bound_of_any_network(chain):
    """Against the sum over all paths, for a network that fits no distribution."""
    params = random(chain)
    found = draws(model(chain), params, np.arange(LEVELS)[:, None], 20_000)
    assert_mean(found, [by_paths(chain, params, x0) for x0 in range(LEVELS)])


@every_chain
def test_the_exact_denoiser(chain):
    """It makes the bound the likelihood, but for what the chain does not forget, and the samples the data."""
    params = exact(chain)
    bound = np.array([by_paths(chain, params, x0) for x0 in range(LEVELS)])
    last = MARGIN @ np.linalg.multi_dot(matrices(chain))[:LEVELS]
    used = last > 0
    forgotten = (last[used] * np.log(last[used] / np.asarray(chain.limit())[used])).sum()
    np.testing.assert_allclose(MARGIN @ (np.log(MARGIN) - bound), forgotten, atol=1e-6)
    assert_mean(draws(model(chain), params, np.arange(LEVELS)[:, None], 20_000), bound)
    x = np.asarray(jax.jit(lambda key: model(chain).sample(params, key, 5000))(KEY))[:, 0]
    expected = np.asarray(chain.limit(), np.float64)
    for backward in reversals(chain, params)[::-1]:
        expected = expected @ backward
    assert stats.chisquare(np.bincount(x, minlength=LEVELS), 5000 * expected[:LEVELS] / expected.sum()).pvalue > 1e-3
    if forgotten < 1e-6:
        np.testing.assert_allclose(expected[:LEVELS], MARGIN, atol=1e-6)


def test_loss_is_the_bound_and_the_cross_entropy():
    """Against the terms of the bound and the cross entropy, both from the path sums' matrices, averaged over steps."""
    chain, weight = CHAINS["uniform"], 0.5
    params, x0 = random(chain), 1
    cross_entropy = 0.0
    for t, mu in enumerate(denoisers(chain, params), start=1):
        cross_entropy -= (joint_of_start_and_step(chain, t).sum(1)[x0] * np.log(mu[:, x0])).sum() / STEPS
    expected = -by_paths(chain, params, x0) / STEPS + weight * cross_entropy
    batch = Batch(jnp.full((60_000, 1), x0))
    loss, (_, metrics) = jax.jit(model(chain, cross_entropy_weight=weight).loss)(params, (), KEY, batch)
    np.testing.assert_allclose(loss, expected, rtol=0.02)
    np.testing.assert_allclose(metrics["cross_entropy"], cross_entropy, rtol=0.02)
    np.testing.assert_allclose(metrics["divergence"] + weight * metrics["cross_entropy"], loss, rtol=1e-4)


@every_chain
def test_bayes_rule(chain):
    """q(x_{t-1} | x_t, x_0) against conditioning the joint distribution of every pair of states."""
    for t in range(1, STEPS + 1):
        joint = joint_of_start_and_step(chain, t)
        for x0, x_t in itertools.product(range(LEVELS), range(chain.num_states)):
            if joint[x0, :, x_t].sum() > 0:
                one_hot = jax.nn.one_hot(jnp.array([x0]), LEVELS)
                found = transitions.reverse(chain, one_hot, jnp.array([x_t]), jnp.array([t]))[0]
                np.testing.assert_allclose(found, joint[x0, :, x_t] / joint[x0, :, x_t].sum(), atol=1e-6)


@every_chain
def test_matrices(chain):
    """Rows sum to one, and the cumulative matrices are the products of the steps, from the identity on."""
    product = np.eye(chain.num_states)
    for t, step in enumerate([product, *matrices(chain)]):
        product = product @ step
        np.testing.assert_allclose(chain.total(jnp.array([t]))[0], product, atol=1e-6)
        np.testing.assert_allclose(step.sum(1), 1, atol=1e-6)


def test_gaussian_steps_are_those_of_the_paper():
    """Entry by entry from the formula."""
    (found,) = matrices(transitions.gaussian(4, 1, beta_min=0.3, beta_max=0.3))
    total = sum(np.exp(-4 * n**2 / (9 * 0.3)) for n in range(-3, 4))
    for i, j in itertools.permutations(range(4), 2):
        np.testing.assert_allclose(found[i, j], np.exp(-4 * (i - j) ** 2 / (9 * 0.3)) / total, rtol=1e-5)


def test_absorbing_steps_are_those_of_the_paper():
    """beta_t = 1 / (T - t + 1)."""
    found = matrices(transitions.absorbing(LEVELS, 5))[:, 0, LEVELS]
    np.testing.assert_allclose(found, [1 / 5, 1 / 4, 1 / 3, 1 / 2, 1], rtol=1e-5)


@pytest.mark.parametrize("num_steps", [2, 400])
def test_with_masks_it_is_masked_diffusion(num_steps):
    """Against the sums over masks of a few steps, and over orders for many."""
    params = wrong()
    chain = transitions.absorbing(LEVELS, num_steps)
    logits, points = normalised(params), POINTS[::5]
    expected = [
        in_steps(logits, x, masking.linear, num_steps) if num_steps < 10 else any_order(logits, x) for x in points
    ]
    assert_mean(draws(d3pm(Table(), (LENGTH,), chain), params, points, 10_000), expected)


@pytest.mark.parametrize("make", [transitions.absorbing, transitions.uniform], ids=["absorbing", "uniform"])
def test_a_network_learns_a_table(make):
    """The mean bound of the data against the entropy of its table, within 0.1 nats for all three tokens.

    Tokens drawn independently, from the margins of the table, are 0.23 below, and ten steps that change several tokens
    at once by the exact conditionals 0.02 (masks).
    """
    joint, transition = tables.chain().ravel(), make(LEVELS, 10)
    net = TokenNet(TimeMLP((64,)), LEVELS, transition.num_states, width=8)
    net_model, logits = d3pm(net, (LENGTH,), transition, num_bound_times=10), jnp.log(joint)
    draw = lambda key: Batch(jnp.asarray(POINTS)[jax.random.categorical(key, logits, shape=(256,))])  # noqa: E731
    tx = optax.adam(optax.cosine_decay_schedule(1e-2, 400))
    params = fit(net_model, tx, draw, start(net_model, tx, draw), 400).params
    bound = draws(net_model, params, POINTS, 500) @ joint
    entropy, error = -(joint * np.log(joint)).sum(), bound.std() / np.sqrt(len(bound))
    assert error < 0.02
    assert -entropy - 0.1 < bound.mean() < -entropy + 4 * error


def test_wrong_numbers_are_named():
    chain = CHAINS["uniform"]
    with pytest.raises(ValueError, match="cross_entropy_weight must not be negative, got -1"):
        model(chain, cross_entropy_weight=-1.0)
    with pytest.raises(ValueError, match="num_bound_times must be at least 1, got 0"):
        model(chain, num_bound_times=0)
    with pytest.raises(ValueError, match="expects integers, got data of type float32"):
        model(chain).elbo(random(chain), KEY, jnp.zeros((2, 1)))
    for make in (transitions.absorbing, transitions.uniform, transitions.gaussian):
        with pytest.raises(ValueError, match="num_levels must be at least 2, got 1"):
            make(1, 5)
        with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
            make(2, 0)
    with pytest.raises(ValueError, match="0 < beta_min <= beta_max, got 0.2 and 0.1"):
        transitions.gaussian(3, 5, beta_min=0.2, beta_max=0.1)
