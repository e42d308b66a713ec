r"""Masked diffusion: tokens vanish one by one, and a network guesses each from those that are left.

With m(t) the share of masked tokens of `paths.masking`, data x of tokens 0 .. L - 1, and mu_i(x_t) the network's
distribution of token i:

    (1)  P(x_t,i = mask | x_i) = m(t),  else x_t,i = x_i
    (2)  ln p(x) >= E int_0^1 m'(t) / m(t) sum_{i masked} ln mu_i(x_i | x_t) dt
    (3)  sample: x_1 all masks; from t to s each masked token i is shown with probability (m(t) - m(s)) / m(t), drawn
         from mu_i(x_t)
    (4)  with T equal steps, t = 1/T, 2/T .. 1 and s = t - 1/T:
         ln p(x) >= E sum_t (m(t) - m(s)) / m(t) sum_{i masked} ln mu_i(x_i | x_t)

(2) has no terms for the ends of time, since m(0) = 0 and m(1) = 1. In m instead of t it is the integral over m of
1/m sum_i ln mu_i: it does not depend on the masking, only its noise does, nor does it where the network is told m.
It is the mean over all orders in which tokens may be shown of the log-probability of the data in that order, and so
tight for the exact conditionals. (4) is the bound of the samples of (3) with that grid; it stays below the likelihood
even then, in the mean over the data, since tokens that are shown together are drawn independently.

Sources: Simplified and Generalized Masked Diffusion for Discrete Data, https://arxiv.org/abs/2406.04329; Simple and
Effective Masked Diffusion Language Models, https://arxiv.org/abs/2406.07524.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.distributions import categorical_log_prob, stored, sum_event, tokens
from jaxgen.nets import pure
from jaxgen.paths import masking as masks
from jaxgen.samplers import generate
from jaxgen.samplers.loop import scan_grid
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["masked_diffusion"]


def masked_diffusion(
    net: nn.Module,
    shape: Sequence[int],
    num_levels: int,
    *,
    masking: masks.Masking = masks.cosine,
    grid: Callable[[int], Any] = masks.cosine_grid,
    num_steps: int = 50,
    num_bound_times: int = 8,
    num_bound_steps: int | None = None,
) -> Model:
    """Builds a masked diffusion model of integers.

    Args:
        net: a module called as `net(x, level, cond)` with tokens `x [n, *shape]` in 0 .. L, of which L is the mask, and
            `level [n]` the share m(t) of tokens that are masked; its output are logits `[n, *shape, L]`
            (`nets.tokens.TokenNet`). No dropout.
        shape: shape of one example.
        num_levels: L, the number of values of a token.
        masking: `t -> m(t)`, from `paths.masking`; for `linear` and `cosine` the variance of (2) grows with the
            logarithm of the smallest time, for `polynomial` of more than 1 it is bounded.
        grid: `num_steps -> times` of samples, falling from 1 to 0.
        num_steps: steps of the sampler, each one evaluation of the network.
        num_bound_times: evaluations of the network for each `elbo`.
        num_bound_steps: T of the bound (4), in `elbo` and `loss`; None for continuous time (2).

    Returns:
        A `Model` of integers `[n, *shape]` with `elbo`, unbiased for (2) or (4), in nats; the `loss` is its negative
        mean at one time for each example. Samples are `uint8`, or `int32` for more than 256 levels.

    Raises:
        ValueError: if `num_levels` is below 2 or another number below 1, or the grid does not fall; when called, if the
            data is not of an integer type.

    Source: Simplified and Generalized Masked Diffusion for Discrete Data, https://arxiv.org/abs/2406.04329.
    """
    if num_levels < 2:
        raise ValueError(f"num_levels must be at least 2, got {num_levels}")
    numbers = {"num_steps": num_steps, "num_bound_times": num_bound_times, "num_bound_steps": num_bound_steps}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    generate.check_times(grid(num_steps))
    shape = tuple(shape)

    def logits(params: Params, x_t: Data, share: Any, cond: Cond) -> Float[Array, "n ... levels"]:
        return pure.apply(net, params, x_t, jnp.broadcast_to(share, x_t.shape[:1]), cond)

    def times_and_weights(uniform: PerExample) -> tuple[PerExample, PerExample]:
        """Times of (2) or (4), drawn evenly, and the weight of the sum over masked tokens."""
        if num_bound_steps is None:
            return uniform, masks.rate(masking, uniform)
        index = jnp.ceil(uniform * num_bound_steps)
        t, s = index / num_bound_steps, (index - 1) / num_bound_steps
        return t, num_bound_steps * masks.reveal(masking, t, s)

    def bound(params: Params, key: PRNGKey, uniform: PerExample, x: Data, cond: Cond) -> PerExample:
        """The integrand of (2) at times in (0, 1]."""
        t, weight = times_and_weights(uniform)
        x_t = masks.mask(key, x, masking(t), num_levels)
        log_prob = categorical_log_prob(x, logits(params, x_t, masking(t), cond))
        return weight * sum_event(jnp.where(x_t == num_levels, log_prob, 0.0))

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        return pure.init_on_one(net, key, batch, jnp.zeros((1, *shape), jnp.int32), jnp.zeros(1)), ()

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        time_key, mask_key = jax.random.split(key)
        x = tokens(batch.x, "masked_diffusion")
        uniform = 1 - paths.strata(time_key, x.shape[0])
        return -bound(params, mask_key, uniform, x, batch.cond).mean(), (carry, {})

    def elbo(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        (time_key, mask_key), x_0 = jax.random.split(key), tokens(x, "masked_diffusion")
        part = lambda key, share: bound(params, key, 1 - share, x_0, cond)  # noqa: E731
        return paths.stratified_mean(part, time_key, mask_key, x.shape[0], num_parts=num_bound_times)

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        def step(key: PRNGKey, x_t: Data, t: Any, s: Any) -> Data:
            show_key, value_key = jax.random.split(key)
            value = jax.random.categorical(value_key, logits(params, x_t, masking(t), cond))
            shown = jax.random.bernoulli(show_key, masks.reveal(masking, t, s), x_t.shape)
            return jnp.where((x_t == num_levels) & shown, value, x_t)

        start = jnp.full((num, *shape), num_levels, jnp.int32)
        x, _ = scan_grid(step, key, start, grid(num_steps))
        return stored(x, num_levels)

    return Model(init=init, loss=loss, sample=sample, elbo=elbo)
