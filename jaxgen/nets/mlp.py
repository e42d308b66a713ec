"""Multilayer perceptrons."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from jaxgen.nets.dense import Dense
from jaxgen.nets.labels import needed, one_hot
from jaxgen.types import Cond

__all__ = ["MLP", "append_label"]


def append_label(x: Float[Array, "n d"], cond: Cond, num_classes: int) -> Float[Array, "n e"]:
    """Appends the one-hot label `cond [n]`, or a vector `cond [n, num_classes]`; without classes `x` is unchanged.

    Labels out of range, which cannot raise where they are traced, give NaN.

    Raises:
        ValueError: if there are classes and no label, or a vector of another width.
    """
    if num_classes == 0:
        return x
    cond = needed(cond, num_classes)
    if cond.ndim == 2:
        if cond.shape[1] != num_classes:
            raise ValueError(f"expected vectors of width {num_classes} in cond, got shape {cond.shape}")
        return jnp.concatenate([x, cond.astype(x.dtype)], axis=-1)
    encoded = one_hot(cond, num_classes, x.dtype)
    return jnp.concatenate([x, encoded], axis=-1)


class MLP(nn.Module):
    """Dense layers with an activation between them, from events of any shape to vectors.

    Attributes:
        features: widths of the hidden layers.
        out_dim: width of the output.
        num_classes: number of labels appended one-hot to the input, or width of vectors appended; 0 for none.
        activation: nonlinearity of the hidden layers.
        zero_init: start with an output of zero.
        dtype: type of the computation in hidden layers; parameters, the last layer and output are float32.
    """

    features: Sequence[int]
    out_dim: int
    num_classes: int = 0
    activation: Callable[[Any], Any] = nn.silu
    zero_init: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Shaped[Array, "n ..."], cond: Cond = None) -> Float[Array, "n out"]:
        """Maps `x [n, ...]` and labels `cond [n]` to `[n, out_dim]`."""
        x = append_label(x.reshape(x.shape[0], -1).astype(jnp.float32), cond, self.num_classes)
        for width in self.features:
            x = self.activation(Dense(width, dtype=self.dtype)(x))
        kernel_init = nn.initializers.zeros if self.zero_init else nn.initializers.lecun_normal()
        return Dense(self.out_dim, kernel_init=kernel_init)(x.astype(jnp.float32))
