"""What a Markov kernel is: a record of two functions, as in blackjax, and the loop that runs it.

A kernel T leaves a distribution p invariant (exactly, or up to a step size that its file names):
sum_x p(x) T(x' | x) = p(x').

Source: BlackJAX, https://arxiv.org/abs/2402.10797.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxgen.types import PRNGKey

__all__ = ["Kernel", "run"]


class Kernel(NamedTuple):
    """A Markov kernel.

    Attributes:
        init: `position -> state`.
        step: `(key, state) -> (state, info)`, one transition; the chains are rows, and independent.
    """

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, Any]]


def run(kernel: Kernel, key: PRNGKey, state: Any, num_steps: int) -> Any:
    """Applies a kernel `num_steps` times in one `lax.scan`.

    Args:
        kernel: the Markov kernel.
        key: random key, split into one for each step.
        state: what `kernel.init` or an earlier run returned.
        num_steps: number of transitions, static; 0 returns the state as it is.

    Returns:
        The last state.

    Raises:
        ValueError: if `num_steps` is negative.
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must not be negative, got {num_steps}")
    last, _ = jax.lax.scan(
        lambda state, key: (kernel.step(key, state)[0], None), state, jax.random.split(key, num_steps)
    )
    return last
