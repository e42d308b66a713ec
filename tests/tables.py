"""Three tokens of three levels with known joint probabilities: what a diffusion of them must find, by enumeration."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

LEVELS, LENGTH = 3, 3
POINTS = np.array(list(itertools.product(range(LEVELS), repeat=LENGTH)))


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
