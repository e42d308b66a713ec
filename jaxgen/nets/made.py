"""MADE: all conditionals of a vector by one masked perceptron.

Decoded number by number it keeps its hidden units, of which each is computed once (`nets.masked`), so that a draw costs
as many products as one pass over the data.

Source: MADE: Masked Autoencoder for Distribution Estimation, https://arxiv.org/abs/1502.03509.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Num

from jaxgen.nets.causal import Causal, labelled
from jaxgen.nets.masked import Degrees, MaskedMLP

__all__ = ["MADE"]


class MADE(Causal):
    """Logits of every number of a vector from those before it; the first axes may be those of an image.

    Attributes:
        num_levels: number of values of each.
        widths: hidden units of each layer.
        shape: shape of one example.
        num_classes: number of labels; 0 for none.

    Raises:
        ValueError: if there are fewer than 2 levels.

    Source: MADE, https://arxiv.org/abs/1502.03509.
    """

    num_levels: int
    widths: Sequence[int]
    shape: Sequence[int]
    num_classes: int = 0

    def __post_init__(self) -> None:
        if self.num_levels < 2:
            raise ValueError(f"num_levels must be at least 2, got {self.num_levels}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "n ..."], context: Any = None, position: Any = None, masks: Degrees | None = None
    ) -> Any:
        """Logits `[n, *shape, levels]` of examples `[n, *shape]`; or of one number, `[n] -> [n, levels]`.

        With `masks` the order of all numbers, and so the meaning of a position, is theirs and not that of the axes.
        """
        labels = labelled(context, self.num_classes, x.shape[0]) if self.num_classes else None
        net, scaled = MaskedMLP(self.widths, self.num_levels, self.num_classes), self._scaled(x)
        if position is None:
            return net(scaled.reshape(x.shape[0], -1), labels, masks=masks).reshape(*x.shape, self.num_levels)
        seen: Any = self.variable("cache", "seen", jnp.zeros, (x.shape[0], math.prod(self.shape)))
        before = jnp.maximum(position - 1, 0)
        element = before if masks is None else jnp.argmax(masks.order == before)
        seen.value = seen.value.at[:, element].set(jnp.where(position == 0, 0.0, scaled))
        return net(seen.value, labels, position, masks)

    def _scaled(self, x: Any) -> Any:
        """Levels as reals in [0, 1]."""
        return x.astype(jnp.float32) / (self.num_levels - 1)
