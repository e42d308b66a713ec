r"""The one loop of positions: an element at a time, each from the conditional that a cached step gives.

With elements x_0 .. x_{T-1}, and a step that remembers of the elements before i what its network needs:

    (1)  cache_i, output_i = step(cache_{i-1}, x_{i-1}, i),     output_i describes p(x_i | x_0 .. x_{i-1})
    (2)  x_i = given_i for i < k,   else choose(key_i, output_i)

The cost of a position is that of one step, whatever its cache is: the keys and values of a transformer, the ring
buffers of dilated convolutions, the last rows of a masked one. With everything given, (1) are the conditionals of data.

What may be chosen from logits: all of it (`draw`), the most probable (`greedy`), or draws from logits that filters have
changed first, `draw_from(temperature(0.8), top_k(40))`.

Source of (2) with `top_p`: The Curious Case of Neural Text Degeneration, https://arxiv.org/abs/1904.09751.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from jaxgen.types import PRNGKey

__all__ = [
    "Step",
    "conditionals",
    "decode",
    "draw",
    "draw_from",
    "greedy",
    "scan_positions",
    "temperature",
    "top_k",
    "top_p",
]

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
Logits = Float[Array, "*batch levels"]
Token = Integer[Array, "*batch"]


def scan_positions(
    step: Step, pick: Callable[..., tuple[Any, Any]], cache: Any, start: Any, per_position: Any, length: int
) -> tuple[Any, Any]:
    """The loop (1) with x_i = `pick(output_i, (i, of position i))`, which `decode`, `conditionals` and beams share.

    Args:
        step: `(cache, x_{i-1}, i) -> (cache, output)`.
        pick: `(output, (i, of position i)) -> (x_i, what is kept of it)`; an element may be any tree of arrays.
        cache: the cache before the first position.
        start: what stands for the element before the first one.
        per_position: a tree of what is known of each position, first axis the position; `None` for nothing.
        length: number of positions.

    Returns:
        The last element, and what is kept of every position, first axis the position.
    """

    def advance(state: tuple[Any, Any], inputs: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
        cache, output = step(*state, inputs[0])
        element, kept = pick(output, inputs)
        return (cache, element), kept

    (_, last), kept = jax.lax.scan(advance, (cache, start), (jnp.arange(length), per_position))
    return last, kept


def decode(
    step: Step,
    choose: Callable[[Any, Any], Any],
    key: PRNGKey,
    cache: Any,
    given: Shaped[Array, "n positions ..."],
    num_given: Any,
) -> Shaped[Array, "n positions ..."]:
    """Elements by (1) and (2), in one scan.

    Args:
        step: `(cache, x_{i-1} [n, ...], i) -> (cache, output)`; at i = 0 it gets zeros, which it must not read.
        choose: `(key, output) -> x_i [n, ...]`.
        key: random key, split into one for each position.
        cache: the cache before the first position.
        given: `[n, T, ...]`, of which the first `num_given` are taken and the others ignored; T positions are visited.
        num_given: k, which may be traced.

    Returns:
        `[n, T, ...]`, of the type of `given`.
    """
    length = given.shape[1]

    def pick(output: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
        position, (key, known) = inputs
        element = jnp.where(position < num_given, known, choose(key, output).astype(given.dtype))
        return element, element

    per_position = (jax.random.split(key, length), jnp.moveaxis(given, 1, 0))
    _, x = scan_positions(step, pick, cache, jnp.zeros_like(given[:, 0]), per_position, length)
    return jnp.moveaxis(x, 0, 1)


def conditionals(step: Step, cache: Any, x: Shaped[Array, "n positions ..."]) -> Any:
    """The outputs of (1) for given data `[n, T, ...]`, position by position: `[n, T, ...]`."""
    pick = lambda output, inputs: (inputs[1], output)  # noqa: E731
    _, kept = scan_positions(step, pick, cache, jnp.zeros_like(x[:, 0]), jnp.moveaxis(x, 1, 0), x.shape[1])
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), kept)


def draw(key: PRNGKey, logits: Logits) -> Token:
    """A draw from the softmax of the logits."""
    return jax.random.categorical(key, logits)


def greedy(key: PRNGKey, logits: Logits) -> Token:
    """The most probable level."""
    del key
    return logits.argmax(-1)


def draw_from(*filters: Callable[[Any], Any]) -> Callable[[PRNGKey, Any], Any]:
    """Draws from logits that the filters have changed, the first one first."""

    def choose(key: PRNGKey, logits: Logits) -> Token:
        for change in filters:
            logits = change(logits)
        return draw(key, logits)

    return choose


def temperature(value: Any) -> Callable[[Logits], Logits]:
    """The filter that divides logits by a temperature above 0, which may be traced.

    Raises:
        ValueError: if it is a number that is not above 0.
    """
    if not isinstance(value, jax.core.Tracer) and not value > 0:
        raise ValueError(f"temperature must be above 0, got {value}; for the most probable level use greedy")
    return lambda logits: logits / value


def top_k(k: int) -> Callable[[Logits], Logits]:
    """The filter that leaves the k most probable levels (and those as probable as the last of them).

    Raises:
        ValueError: if `k < 1`.
    """
    if k < 1:
        raise ValueError(f"top_k needs at least 1 level, got {k}")

    def keep(logits: Logits) -> Logits:
        smallest = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
        return jnp.where(logits >= smallest, logits, -jnp.inf)

    return keep


def top_p(p: float) -> Callable[[Logits], Logits]:
    """The filter that leaves the smallest set of most probable levels whose probabilities add up to p or more.

    Raises:
        ValueError: if p is not in (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p needs a probability in (0, 1], got {p}")

    def keep(logits: Logits) -> Logits:
        falling = -jnp.sort(-logits, axis=-1)
        before = jnp.cumsum(jax.nn.softmax(falling), -1) - jax.nn.softmax(falling)
        smallest = jnp.where(before < p, falling, jnp.inf).min(-1, keepdims=True)
        return jnp.where(logits >= smallest, logits, -jnp.inf)

    return keep
