r"""Annealed importance sampling: the ratio of two normalising constants along a path of distributions.

With unnormalised densities f_0, ..., f_K, their constants Z_k = sum_x f_k(x), draws x_0 ~ f_0 / Z_0 and transitions T_k
that leave f_k / Z_k invariant:

    (1)  x_k ~ T_k(. | x_{k-1}),   ln w = sum_{k=1..K} ln f_k(x_{k-1}) - ln f_{k-1}(x_{k-1})
    (2)  E[w] = Z_K / Z_0
    (3)  r = ln (1/n) sum_i w_i,   E[r] <= ln Z_K / Z_0,   P(r >= ln Z_K / Z_0 + a) <= exp(-a)
    (4)  standard error of r:  s = sd(w) / (sqrt(n) mean(w))

By (3) r is a stochastic LOWER bound: the constant comes out too small, and a likelihood f(x) / Z computed with it too
LARGE, unless the path is long enough. Run along the reversed path from exact draws of f_K / Z_K, the same code gives
ln Z_0 / Z_K from below, that is ln Z_K from above: the two sandwich the truth.

Source: Annealed Importance Sampling, Neal, 2001, https://arxiv.org/abs/physics/9803008; the sandwich: Sandwiching the
marginal likelihood using bidirectional Monte Carlo, Grosse et al., 2015, https://arxiv.org/abs/1511.02543.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.types import PerExample, PRNGKey

__all__ = ["AISInfo", "AISState", "LogMean", "ais", "init", "log_mean_exp", "step"]

LogDensity = Callable[[Any, Any], Any]
Transition = Callable[[PRNGKey, Any, Any], Any]


class AISState(NamedTuple):
    """State of the chains.

    Attributes:
        position: x, with n rows.
        log_weight: ln w so far `[n]`, in nats.
        beta: where on the path the chains stand.
    """

    position: Any
    log_weight: Any
    beta: Any


class AISInfo(NamedTuple):
    """What a step added.

    Attributes:
        log_increment: the new term of (1) `[n]`, in nats.
    """

    log_increment: Any


class LogMean(NamedTuple):
    """Logarithm of a mean, in nats.

    Attributes:
        value: r in (3).
        standard_error: s in (4).
        lower: lower end of the interval.
        upper: upper end of the interval.
    """

    value: Any
    standard_error: Any
    lower: Any
    upper: Any


def init(position: Any, beta: Any) -> AISState:
    """State of chains that stand at draws of the first density, with weight one."""
    num = jax.tree.leaves(position)[0].shape[0]
    return AISState(position, jnp.zeros(num), beta)


def step(
    key: PRNGKey, state: AISState, beta: Any, log_density: LogDensity, transition: Transition
) -> tuple[AISState, AISInfo]:
    """Goes on to `beta`: one term of (1), then one transition."""
    increment = log_density(state.position, beta) - log_density(state.position, state.beta)
    position = transition(key, state.position, beta)
    return AISState(position, state.log_weight + increment, beta), AISInfo(increment)


def ais(
    key: PRNGKey,
    position: Any,
    betas: Float[Array, " k"],
    log_density: LogDensity,
    transition: Transition,
) -> AISState:
    """Runs annealed importance sampling along a path, in one `lax.scan`.

    Args:
        key: random key.
        position: n draws of the density at `betas[0]`.
        betas: the path, K + 1 numbers (any path: inverse temperatures from 0 to 1, or from 1 to 0); traced, so that
            another path of the same length does not recompile.
        log_density: `(x, beta) -> [n]`, ln f at `beta`, in nats.
        transition: `(key, x, beta) -> x`, leaves f at `beta` invariant.

    Returns:
        The last state. Its `log_weight [n]` are unbiased in the sense of (2); its `position` are nearly draws of the
        last density.

    Raises:
        ValueError: if the path has fewer than two numbers.
    """
    if betas.shape[0] < 2:
        raise ValueError(f"betas must hold at least two numbers, got {betas.shape[0]}")

    def advance(state: AISState, inputs: tuple[Any, Any]) -> tuple[AISState, None]:
        key, beta = inputs
        return step(key, state, beta, log_density, transition)[0], None

    keys = jax.random.split(key, betas.shape[0] - 1)
    last, _ = jax.lax.scan(advance, init(position, betas[0]), (keys, betas[1:]))
    return last


def log_mean_exp(log_weight: PerExample, *, num_errors: float = 3.0) -> LogMean:
    """The estimate (3) from independent weights, with an interval by the delta method.

    The interval is r +- num_errors s, with s from (4): how far independent runs scatter. Its rate of covering the truth
    is near the normal one (99.7 % at 3 errors) while s is below about 0.2 nats; above, and with weights whose heavy
    tail does not show in n draws, it covers less, and errs downwards by (3). Lengthen the path until s is small.

    Args:
        log_weight: ln w `[n]`, in nats, n >= 2.
        num_errors: half width of the interval in standard errors.

    Returns:
        A `LogMean` of scalars, in nats.

    Raises:
        ValueError: if there are fewer than two weights, or `num_errors` is not positive.
    """
    num = log_weight.shape[0]
    if num < 2:
        raise ValueError(f"an interval needs at least two weights, got {num}")
    if not num_errors > 0:
        raise ValueError(f"num_errors must be positive, got {num_errors}")
    value = jax.nn.logsumexp(log_weight) - jnp.log(num)
    error = jnp.std(jnp.exp(log_weight - value), ddof=1) / jnp.sqrt(num)
    return LogMean(value, error, value - num_errors * error, value + num_errors * error)
