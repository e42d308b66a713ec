"""Increasing functions of one number."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

__all__ = ["Monotone"]


class Monotone(nn.Module):
    """An increasing function of [0, 1] with f(0) = 0 and f(1) = 1, nearly straight at the start.

    f is g, shifted and scaled, with g(t) = |a| t + mean_j |w_j| sigmoid(|u_j| (2 t - 1) + b_j).

    Attributes:
        features: number of sigmoids.

    Source: Variational Diffusion Models, https://arxiv.org/abs/2107.00630, appendix H.
    """

    features: int = 1024

    @nn.compact
    def __call__(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """Maps `t`, elementwise."""
        slope = jnp.abs(self.param("slope", nn.initializers.ones, ()))
        weights = jnp.abs(self.param("weights", nn.initializers.normal(0.1), (self.features,)))
        steepness = jnp.abs(self.param("steepness", nn.initializers.normal(5.0), (self.features,)))
        bias = self.param("bias", nn.initializers.normal(2.0), (self.features,))

        def unscaled(t: Float[Array, "..."]) -> Float[Array, "..."]:
            return slope * t + (weights * nn.sigmoid(steepness * (2 * t[..., None] - 1) + bias)).mean(-1)

        first, last = unscaled(jnp.zeros(())), unscaled(jnp.ones(()))
        return (unscaled(t) - first) / (last - first)
