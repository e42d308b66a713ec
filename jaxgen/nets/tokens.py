"""Networks of tokens, made of networks of reals."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Integer

from jaxgen.nets.dense import Dense
from jaxgen.types import Cond

__all__ = ["TokenNet"]


class TokenNet(nn.Module):
    """A network of reals between an embedding of tokens and logits of their levels.

    The vectors of the tokens along the last axis stand side by side, so that `[n, length]` becomes vectors and
    `[n, height, width, channels]` an image of more channels.

    Attributes:
        body: called as `body(x, level, cond)`, with an output like x (`TimeMLP`, `UNet`, `DiT`).
        num_levels: number of values that a token of data has.
        num_states: number of values that a token may have on its way, a mask among them.
        width: length of the vector of a token.
    """

    body: nn.Module
    num_levels: int
    num_states: int
    width: int = 16

    @nn.compact
    def __call__(
        self, x: Integer[Array, "n ..."], level: Float[Array, " n"], cond: Cond = None
    ) -> Float[Array, "n ... levels"]:
        """Maps tokens `x [n, ...]`, noise levels `[n]` and labels to logits `[n, ..., num_levels]`."""
        embedded: Any = nn.Embed(self.num_states, self.width)(x)
        hidden = embedded.reshape(*x.shape[:-1], x.shape[-1] * self.width)
        hidden = hidden + self.body(hidden, level, cond)
        return Dense(self.num_levels)(hidden.reshape(embedded.shape).astype(jnp.float32))
