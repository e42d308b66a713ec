"""A convolutional classifier whose last hidden layer is a feature space for comparing images."""

from collections.abc import Sequence

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from jaxgen.nets.conv import ConvEncoder
from jaxgen.nets.dense import Dense

__all__ = ["ConvClassifier"]


class ConvClassifier(nn.Module):
    """Strided convolutions, one hidden layer of features, and a linear map to logits.

    Attributes:
        num_classes: number of labels.
        num_features: width of the hidden layer.
        channels: channels of the convolutions, each of which halves both sides.
    """

    num_classes: int
    num_features: int = 64
    channels: Sequence[int] = (32, 64)

    @nn.compact
    def __call__(self, x: Shaped[Array, "n h w c"]) -> tuple[Float[Array, "n classes"], Float[Array, "n features"]]:
        """Maps images `x [n, h, w, c]` to logits `[n, num_classes]` and features `[n, num_features]`, not negative."""
        features = jax.nn.relu(ConvEncoder(self.channels, self.num_features)(x))
        return Dense(self.num_classes)(features), features
