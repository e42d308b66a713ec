"""Array aliases that the whole library shares.

Shapes are written in jaxtyping's notation: `n` is the number of examples and `...` the shape of one
example (the *event*).
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Key, Num, PyTree, Shaped, UInt32

__all__ = ["Batch", "Carry", "Cond", "Data", "Metrics", "PRNGKey", "Params", "PerExample", "Scalar"]

Params = PyTree[Any]
"""Parameters: nested dictionaries of arrays, as Flax makes them."""

Carry = PyTree[Any]
"""What a loss remembers from one step to the next; `()` where there is nothing to remember."""

PRNGKey = Key[Array, ""] | UInt32[Array, "2"]
"""A random key, as `jax.random.key` makes it (raw `uint32` keys are accepted)."""

Data = Shaped[Array, "n ..."]
"""Data: `n` examples."""

Cond = PyTree[Any]
"""What the data is conditioned on, `[n, ...]` in every leaf (labels, say), or `None`."""

PerExample = Float[Array, " n"]
"""One number for each example."""

Scalar = Num[Array, ""] | float | int
"""One number."""

Metrics = dict[str, Any]
"""Named scalars that a training step reports."""


class Batch(NamedTuple):
    """A batch of examples.

    Attributes:
        x: data `[n, ...]`.
        cond: what the data is conditioned on, `[n, ...]` (labels, text, a source image), or `None`.
    """

    x: Any
    cond: Any = None
