"""The restricted Boltzmann machine against enumeration of all its states."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import special, stats

from jaxgen.core import DATA_AXIS, init_state, score, train_step
from jaxgen.models.energy.rbm import (
    ais_log_partition,
    base_rate_logits,
    block_gibbs,
    decode,
    encode,
    energy,
    log_partition,
    pseudo_log_prob,
    rbm,
    sample_from,
)
from jaxgen.transforms import normalize
from jaxgen.types import Batch


def states(num):
    return np.array(list(itertools.product([0, 1], repeat=num)), np.uint8)


def make_params(num_visible, num_hidden, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"weights": (num_visible, num_hidden), "visible_bias": (num_visible,), "hidden_bias": (num_hidden,)}
    return {name: jnp.asarray(scale * rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def joint_logits(params):
    """Oracle: b.x + c.h + x^T W h of every pair of states, float64."""
    w, b, c = (np.asarray(params[name], np.float64) for name in ("weights", "visible_bias", "hidden_bias"))
    x, h = states(len(b)).astype(float), states(len(c)).astype(float)
    return (x @ b)[:, None] + h @ c + x @ w @ h.T


def visible_probabilities(params):
    """Oracle: p(x) of every state."""
    return special.softmax(joint_logits(params)).sum(1)


def index(x):
    """Row of `states` that equals x."""
    return np.asarray(x).astype(int) @ (1 << np.arange(x.shape[1])[::-1])


def chi_square_p(draws, probabilities):
    counts = np.bincount(draws, minlength=len(probabilities))
    return stats.chisquare(counts, counts.sum() * probabilities / probabilities.sum()).pvalue


TINY = make_params(4, 3)
ALL_X = jnp.asarray(states(4))


def test_free_energy_sums_out_the_hidden_units():
    """Oracle: -ln sum_h exp(b.x + c.h + x^T W h), enumerated."""
    np.testing.assert_allclose(energy(TINY, ALL_X), -special.logsumexp(joint_logits(TINY), axis=1), rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (1, 1)])
def test_log_partition_sums_over_all_states(shape):
    """Oracle: ln sum over all (x, h), float64; enumerating either layer."""
    params = make_params(*shape, seed=1)
    np.testing.assert_allclose(log_partition(params), special.logsumexp(joint_logits(params)), rtol=1e-6)


def test_log_partition_of_twelve_hidden_units_sums_over_the_other_layer():
    """Oracle: ln sum_x exp(-F(x)) over 2^13 visible states, against the 2^12 hidden ones."""
    params = make_params(13, 12, seed=2)
    log_terms = -np.asarray(energy(params, jnp.asarray(states(13))), np.float64)
    np.testing.assert_allclose(log_partition(params), special.logsumexp(log_terms), rtol=1e-6)
    with pytest.raises(ValueError, match="at most 20 units, the smaller one has 21"):
        log_partition(make_params(21, 22))


def test_normalize_gives_the_exact_log_probability():
    """Oracle: the enumerated p(x), which sums to one."""
    model = normalize(rbm(4, 3), log_partition)
    np.testing.assert_allclose(np.exp(model.log_prob(TINY, ALL_X)), visible_probabilities(TINY), rtol=1e-5)
    with pytest.raises(ValueError, match="energy"):
        normalize(model._replace(energy=None), log_partition)


@pytest.mark.parametrize("base", ["fair", "rates"])
def test_ais_interval_covers_the_exact_log_partition(base):
    """Oracle: enumeration, 12 hidden units. 100 seeds; 99.7 % expected of 3 standard errors, at least 97 asked."""
    params = make_params(16, 12, seed=3)
    base_logits = None if base == "fair" else base_rate_logits(jnp.asarray(np.eye(16)[:5]))
    estimate = jax.jit(
        lambda keys: jax.lax.map(
            lambda key: ais_log_partition(params, key, 100, jnp.linspace(0, 1, 80), base_logits=base_logits), keys
        )
    )(jax.random.split(jax.random.key(0), 100))
    exact = float(log_partition(params))
    assert np.mean((estimate.lower <= exact) & (exact <= estimate.upper)) >= 0.97
    np.testing.assert_allclose(np.std(estimate.value), np.mean(estimate.standard_error), rtol=0.25)
    ratio = np.exp(np.asarray(estimate.value, np.float64) - exact)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 10


def test_the_gibbs_transition_matrix_leaves_the_distribution_invariant():
    """Oracle: p T = p with p enumerated and T(x' | x) = sum_h p(h | x) p(x' | h) from `decode` and -dF/dc."""
    to_hidden = jax.vmap(jax.grad(lambda c, x: -energy({**TINY, "hidden_bias": c}, x[None])[0]), (None, 0))
    on_hidden, on_visible = to_hidden(TINY["hidden_bias"], ALL_X), decode(TINY, jnp.asarray(states(3)))
    bits = lambda means, x: np.where(x[None] == 1, means[:, None], 1 - means[:, None]).prod(-1)  # noqa: E731
    transition = bits(np.asarray(on_hidden, np.float64), states(3)) @ bits(
        np.asarray(on_visible, np.float64), states(4)
    )
    exact = visible_probabilities(TINY)
    np.testing.assert_allclose(transition.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(exact @ transition, exact, rtol=1e-5)


@pytest.mark.parametrize("start", [0, 11])
def test_gibbs_steps_with_the_enumerated_probabilities(start):
    """Oracle: p(h | x) p(x' | h) of every (h, x'), enumerated; chi-square of 50000 steps."""
    kernel = block_gibbs(TINY)
    x = jnp.tile(ALL_X[start].astype(jnp.float32), (50000, 1))
    state, info = jax.jit(kernel.step)(jax.random.key(start), kernel.init(x))
    joint = special.softmax(joint_logits(TINY))
    expected = (joint[start] / joint[start].sum()) * (joint / joint.sum(0))
    assert chi_square_p(index(state.position) * 8 + index(info.latent), expected.ravel()) > 1e-3


def test_samples_have_the_exact_probabilities():
    """Oracle: enumerated p(x); chi-square of 20000 samples from noise."""
    x = jax.jit(rbm(4, 3, sample_steps=100).sample, static_argnums=2)(TINY, jax.random.key(0), 20000)
    chex.assert_shape(x, (20000, 4))
    assert x.dtype == jnp.uint8
    assert chi_square_p(index(x), visible_probabilities(TINY)) > 1e-3


def test_encode_draws_the_hidden_units():
    """Oracle: enumerated p(h | x) for one x."""
    latent = encode(TINY, jax.random.key(0), jnp.tile(ALL_X[5], (20000, 1)))
    assert chi_square_p(index(latent), special.softmax(joint_logits(TINY)[5])) > 1e-3


def test_chains_start_from_a_seed():
    """A machine of two deep modes (one unit that copies, +-20 nats): a chain stays in the mode of its seed."""
    params = {"weights": jnp.full((6, 1), 20.0), "visible_bias": jnp.full(6, -10.0), "hidden_bias": jnp.array([-60.0])}
    for seed in (jnp.zeros((3, 6), jnp.uint8), jnp.ones((3, 6), jnp.float32)):
        np.testing.assert_array_equal(sample_from(params, jax.random.key(0), seed, 50), seed)


def numpy_gradient(params, x, chains):
    """Oracle: -(<x h>_data - <x h>_chains), with means of the hidden units, float64."""
    w, c = np.asarray(params["weights"], np.float64), np.asarray(params["hidden_bias"], np.float64)
    statistics = []
    for rows in (np.asarray(x, np.float64), np.asarray(chains, np.float64)):
        hidden = special.expit(rows @ w + c)
        moments = {"weights": rows.T @ hidden, "visible_bias": rows.sum(0), "hidden_bias": hidden.sum(0)}
        statistics.append({name: value / len(rows) for name, value in moments.items()})
    return {name: statistics[1][name] - statistics[0][name] for name in params}


def test_the_gradient_of_the_loss_is_the_rule_of_contrastive_divergence():
    """Oracle: the rule in numpy with the chains that the loss returned; CD is PCD that starts at the batch."""
    params, x = make_params(9, 5, 0.5), jnp.asarray(np.random.default_rng(0).integers(0, 2, (16, 9)), jnp.uint8)
    persistent, contrastive = rbm(9, 5, num_steps=3, num_chains=16), rbm(9, 5, num_steps=3)
    key, batch = jax.random.key(0), Batch(x)
    grads, (chains, _) = jax.jit(jax.grad(persistent.loss, has_aux=True))(params, x, key, batch)
    chex.assert_trees_all_close(grads, jax.tree.map(np.float32, numpy_gradient(params, x, chains)), atol=1e-6)
    assert np.any(np.asarray(chains) != np.asarray(x))
    same, (carry, _) = jax.jit(jax.grad(contrastive.loss, has_aux=True))(params, (), key, batch)
    chex.assert_trees_all_close(same, grads, atol=1e-6)
    assert carry == ()


def test_the_loss_gradient_is_the_likelihood_gradient_in_expectation():
    """Oracle: autodiff of the enumerated likelihood. Chains of exact draws stay exact; 4.5 standard errors."""
    num, batch = 40000, Batch(ALL_X[jnp.array([1, 5, 5, 12])])
    exact = jax.grad(lambda p: -normalize(rbm(4, 3), log_partition).log_prob(p, batch.x).mean())(TINY)
    draws = np.random.default_rng(0).choice(16, num, p=visible_probabilities(TINY))
    model = rbm(4, 3, num_steps=2, num_chains=num)
    grads, (chains, _) = jax.jit(jax.grad(model.loss, has_aux=True))(TINY, ALL_X[draws], jax.random.key(0), batch)
    each = jax.vmap(jax.grad(lambda p, x: energy(p, x[None])[0]), (None, 0))(TINY, chains)
    errors = jax.tree.map(lambda g: g.std(0) / np.sqrt(num), each)
    off_by = jax.tree.map(lambda a, b, e: np.max(np.abs(a - b) / e), grads, exact, errors)
    assert max(jax.tree.leaves(off_by)) < 4.5


def test_pseudo_log_prob_takes_the_enumerated_values():
    """Oracle: D ln p(x_i | other bits) for each i, from the enumerated p(x); a uniform choice among them."""
    probabilities, x = visible_probabilities(TINY), states(4)[6]
    flipped = np.array([index(np.where(np.arange(4) == i, 1 - x, x)[None])[0] for i in range(4)])
    expected = 4 * np.log(probabilities[6] / (probabilities[6] + probabilities[flipped]))
    drawn = np.asarray(pseudo_log_prob(TINY, jax.random.key(0), jnp.tile(jnp.asarray(x), (4000, 1))))
    which = np.abs(drawn[:, None] - expected).argmin(1)
    np.testing.assert_allclose(drawn, expected[which], rtol=1e-4)
    assert chi_square_p(which, np.ones(4)) > 1e-3


def bars_and_stripes():
    """The 14 pictures of 3 x 3 pixels whose rows, or whose columns, are constant."""
    rows = np.repeat(states(3)[:, :, None], 3, axis=2)
    return np.unique(np.concatenate([rows, rows.transpose(0, 2, 1)]).reshape(-1, 9), axis=0)


def test_persistent_contrastive_divergence_nears_maximum_likelihood():
    """Oracle: the exact log-likelihood, at most -ln 14 (reached where the model is the data's distribution)."""
    batch, model = Batch(jnp.asarray(bars_and_stripes())), rbm(9, 8, num_steps=5, num_chains=512)
    tx = optax.adam(optax.linear_schedule(0.01, 0.0, 3000))
    step = train_step(model, tx)
    mean = jax.jit(lambda params: normalize(model, log_partition).log_prob(params, batch.x).mean())
    state = jax.jit(lambda key: init_state(model, tx, key, batch))(jax.random.key(0))
    before = float(mean(state.params))
    state, _ = jax.jit(lambda state: jax.lax.scan(lambda s, _: step(s, batch), state, length=3000))(state)
    after = float(mean(state.params))
    assert before < -6
    assert -np.log(14) - 0.2 < after <= -np.log(14)


def test_score_is_the_gradient_in_closed_form_and_refuses_integers():
    """Oracle: b + W sigmoid(c + x W) for real x."""
    x = np.random.default_rng(0).uniform(size=(5, 4)).astype(np.float32)
    hidden = special.expit(x @ np.asarray(TINY["weights"]) + np.asarray(TINY["hidden_bias"]))
    expected = np.asarray(TINY["visible_bias"]) + hidden @ np.asarray(TINY["weights"]).T
    np.testing.assert_allclose(score(rbm(4, 3))(TINY, jnp.asarray(x)), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="uint8"):
        score(rbm(4, 3))(TINY, ALL_X)


def test_init_starts_at_the_base_rates():
    """Oracle: smoothed means of the batch in numpy; chains of the same means."""
    x = np.random.default_rng(0).binomial(1, [0.0, 0.1, 0.5, 1.0], (400, 4)).astype(np.uint8)
    params, carry = rbm(4, 3, num_chains=4000).init(jax.random.key(0), Batch(jnp.asarray(x)))
    means = (x.sum(0) + 1) / 402
    np.testing.assert_allclose(params["visible_bias"], special.logit(means), rtol=1e-4)
    np.testing.assert_allclose(np.asarray(carry).mean(0), means, atol=4 * 0.5 / np.sqrt(4000))


@pytest.mark.parametrize("num_chains", [None, 16])
def test_one_device_and_eight_agree(num_chains):
    """Oracle: the same step on one device; the chains must be the same bits."""
    model, tx = rbm(9, 5, num_steps=2, num_chains=num_chains), optax.sgd(0.1)
    batch = Batch(jnp.asarray(np.random.default_rng(0).integers(0, 2, (16, 9)), jnp.uint8))
    state = jax.jit(lambda key: init_state(model, tx, key, batch))(jax.random.key(0))
    mesh = jax.make_mesh((8,), (DATA_AXIS,), axis_types=(AxisType.Auto,))
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec(DATA_AXIS)))
    carry = jax.device_put(state.carry, NamedSharding(mesh, model.carry_spec))
    copied = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))._replace(carry=carry)
    step = jax.jit(train_step(model, tx))
    alone, together = step(*step(state, batch)[:1], batch), step(*step(copied, split)[:1], split)
    chex.assert_trees_all_close(alone[0].params, together[0].params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(alone[0].carry, together[0].carry)


@pytest.mark.parametrize("name", ["num_visible", "num_hidden", "num_steps", "num_chains", "sample_steps"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        rbm(**{"num_visible": 4, "num_hidden": 3, name: 0})
