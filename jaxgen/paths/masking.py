r"""Masking: how tokens vanish, one by one, into a state that says nothing.

Time runs from 0 (data) to 1 (masks only). A masking m(t) is the share of tokens that are masked at time t; it rises
from m(0) = 0 to m(1) = 1, and 1 - m(t) is the literature's alpha_t. Each token goes on its own, and never comes back:

    (1)  P(x_t = mask | x) = m(t),  else x_t = x
    (2)  P(x_s = x | x_t = mask, x) = (m(t) - m(s)) / m(t),  s < t
    (3)  rate(t) = m'(t) / m(t), the limit of (2) / (t - s)

Stated through m rather than alpha, (2) and (3) lose no digits where hardly anything is masked.

Source: Simplified and Generalized Masked Diffusion for Discrete Data, https://arxiv.org/abs/2406.04329.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from jaxgen.paths.path import Time
from jaxgen.types import PRNGKey

__all__ = ["Masking", "cosine", "cosine_grid", "linear", "mask", "polynomial", "rate", "reveal"]

Masking = Callable[[Any], Any]
"""`t -> m(t)`, elementwise and differentiable."""


def linear(t: Time) -> Any:
    """Tokens vanish at an even pace: m(t) = t."""
    return jnp.asarray(t)


def cosine(t: Time) -> Any:
    """Most tokens vanish early: m(t) = sin(pi t / 2), which is 1 - alpha with alpha = 1 - cos(pi (1 - t) / 2)."""
    return jnp.sin(0.5 * jnp.pi * t)


def polynomial(exponent: float) -> Masking:
    """m(t) = t^exponent; more than 1 spends more time where little is masked.

    Raises:
        ValueError: unless `exponent` is positive.
    """
    if not exponent > 0:
        raise ValueError(f"exponent must be positive, got {exponent}")
    return lambda t: jnp.asarray(t) ** exponent


def reveal(masking: Masking, t: Time, s: Time) -> Any:
    """The probability (2) that a token masked at time t is not yet masked at s < t."""
    return (masking(t) - masking(s)) / masking(t)


def rate(masking: Masking, t: Float[Array, "..."]) -> Float[Array, "..."]:
    """The rate (3), by autodiff, elementwise."""
    share, slope = jax.jvp(masking, (t,), (jnp.ones_like(t),))
    return slope / share


def mask(key: PRNGKey, x: Integer[Array, "n ..."], share: Float[Array, " n"], state: int) -> Integer[Array, "n ..."]:
    """Draws x_t by (1): each token becomes `state` with its example's probability `share`."""
    share = share.reshape(share.shape + (1,) * (x.ndim - 1))
    return jnp.where(jax.random.bernoulli(key, share, x.shape), state, x)


def cosine_grid(num_steps: int) -> Float[Array, " num_times"]:
    """`[num_steps + 1]` times from 1 down to 0, t = sin(pi u / 2) with even u: the first tokens come singly.

    Raises:
        ValueError: if `num_steps` is below 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    return jnp.sin(0.5 * jnp.pi * jnp.linspace(1.0, 0.0, num_steps + 1))
