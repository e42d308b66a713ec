r"""D3PM: tokens change step by step by transition matrices, and a network guesses what they were.

With the chain of `paths.transitions`, Q_t and total_t of T steps, a distribution l of x_T, and the network's
distribution mu(x_0 | x_t) of each token:

    (1)  q(x_t | x_0) = total_t[x_0, x_t],  q(x_{t-1} | x_t, x_0) by Bayes
    (2)  p(x_{t-1} | x_t) = sum_{x_0} q(x_{t-1} | x_t, x_0) mu(x_0 | x_t),  p(x_T) = l
    (3)  ln p(x_0) >= -KL(q(x_T | x_0) || l) - sum_{t=2..T} E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
                      + E ln mu(x_0 | x_1)
    (4)  loss = E_t [D_t - lambda E ln mu(x_0 | x_t)],  t even in 1 .. T, D_t the terms of (3) without the first

Sums over tokens are left out. (2) is the reverse chain itself where mu is the true p(x_0 | x_t), so that (3) and the
second term of (4) have one optimum; the paper writes q(x_{t-1}, x_t | x_0) in the place of q(x_{t-1} | x_t, x_0),
which is the same for masks and differs for the other chains. mu is nothing where x_t cannot come from x_0.

Source: Structured Denoising Diffusion Models in Discrete State-Spaces, https://arxiv.org/abs/2107.03006.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.distributions import categorical_log_prob, stored, sum_event, tokens
from jaxgen.nets import pure
from jaxgen.paths import transitions as chains
from jaxgen.paths.transitions import Transitions
from jaxgen.samplers.loop import scan_grid
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["d3pm"]

Steps = Int[Array, " n"]
Probabilities = Float[Array, "n ... k"]


def d3pm(
    net: nn.Module,
    shape: Sequence[int],
    transitions: Transitions,
    *,
    cross_entropy_weight: float = 1e-3,
    num_bound_times: int = 8,
) -> Model:
    """Builds a diffusion model of integers in discrete time.

    Args:
        net: a module called as `net(x, level, cond)` with states `x [n, *shape]` and `level [n]` the time t / T; its
            output are logits `[n, *shape, L]` of x_0 (`nets.tokens.TokenNet`). No dropout.
        shape: shape of one example.
        transitions: the chain: `absorbing`, `uniform` or `gaussian` of `paths.transitions`, with L levels and T steps.
        cross_entropy_weight: lambda of (4).
        num_bound_times: evaluations of the network for each `elbo`; T of them take every step once.

    Returns:
        A `Model` of integers `[n, *shape]` with `elbo`, unbiased for (3), in nats; the `loss` is (4) at one step for
        each example, with both of its terms as metrics. Sampling takes all T steps, each one evaluation of the network.
        Samples are `uint8`, or `int32` for more than 256 levels.

    Raises:
        ValueError: if `cross_entropy_weight` is negative or `num_bound_times` below 1; when called, if the data is not
            of an integer type.

    Source: Structured Denoising Diffusion Models in Discrete State-Spaces, https://arxiv.org/abs/2107.03006.
    """
    if cross_entropy_weight < 0:
        raise ValueError(f"cross_entropy_weight must not be negative, got {cross_entropy_weight}")
    if num_bound_times < 1:
        raise ValueError(f"num_bound_times must be at least 1, got {num_bound_times}")
    shape, num_levels, num_steps = tuple(shape), transitions.num_levels, transitions.num_steps

    def logits(params: Params, x_t: Data, t: Steps, cond: Cond) -> Float[Array, "n ... levels"]:
        out = pure.apply(net, params, x_t, t / num_steps, cond)
        return jax.nn.log_softmax(jnp.where(chains.possible(transitions, x_t, t), out, -1e9))

    def terms(params: Params, key: PRNGKey, share: PerExample, x: Data, cond: Cond) -> tuple[PerExample, PerExample]:
        """D_t and -ln mu(x_0 | x_t) at the steps that are a `share`, in (0, 1], of all."""
        t = jnp.ceil(share * num_steps).astype(jnp.int32)
        x_t = jax.random.categorical(key, jnp.log(chains.rows(transitions.total(t), x)))
        log_mu = logits(params, x_t, t, cond)
        truth = chains.reverse(transitions, jax.nn.one_hot(x, num_levels), x_t, t)
        divergence = sum_event(_divergence(truth, chains.reverse(transitions, jnp.exp(log_mu), x_t, t)))
        cross_entropy = -sum_event(categorical_log_prob(x, log_mu))
        return jnp.where(t == 1, cross_entropy, divergence), cross_entropy

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        return pure.init_on_one(net, key, batch, jnp.zeros((1, *shape), jnp.int32), jnp.zeros(1)), ()

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        time_key, noise_key = jax.random.split(key)
        x = tokens(batch.x, "d3pm")
        divergence, cross_entropy = terms(params, noise_key, 1 - paths.strata(time_key, x.shape[0]), x, batch.cond)
        metrics = {"divergence": divergence.mean(), "cross_entropy": cross_entropy.mean()}
        return (divergence + cross_entropy_weight * cross_entropy).mean(), (carry, metrics)

    def elbo(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        (time_key, noise_key), x_0 = jax.random.split(key), tokens(x, "d3pm")
        part = lambda key, share: terms(params, key, 1 - share, x_0, cond)[0]  # noqa: E731
        parts = paths.stratified_mean(part, time_key, noise_key, x.shape[0], num_parts=num_bound_times)
        last = chains.rows(transitions.total(jnp.full(x.shape[0], num_steps)), x_0)
        return -sum_event(_divergence(last, transitions.limit())) - num_steps * parts

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        def step(key: PRNGKey, x_t: Data, t: Any, s: Any) -> Data:
            del s
            steps = jnp.full(num, t, jnp.int32)
            mu = jnp.exp(logits(params, x_t, steps, cond))
            return jax.random.categorical(key, jnp.log(chains.reverse(transitions, mu, x_t, steps)))

        start_key, step_key = jax.random.split(key)
        start = jax.random.categorical(start_key, jnp.log(transitions.limit()), shape=(num, *shape))
        x, _ = scan_grid(step, step_key, start, jnp.arange(num_steps, -1.0, -1.0))
        return stored(x, num_levels)

    return Model(init=init, loss=loss, sample=sample, elbo=elbo)


def _divergence(q: Probabilities, p: Float[Array, "... k"]) -> Float[Array, "n ..."]:
    """KL(q || p) of each token, in nats; states of which q knows nothing count nothing."""
    tiny = jnp.finfo(jnp.float32).tiny
    return (q * (jnp.log(jnp.maximum(q, tiny)) - jnp.log(jnp.maximum(p, tiny)))).sum(-1)
