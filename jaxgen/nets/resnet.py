"""Residual networks from images to images of the same sides: conditioners of coupling layers."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from jaxgen.nets.dense import Dense
from jaxgen.nets.labels import known_or_too_large, needed
from jaxgen.nets.winograd import Conv
from jaxgen.types import Cond

__all__ = ["ResNet"]


class ResNet(nn.Module):
    """Residual blocks of a 3x3 and a 1x1 convolution, at one resolution.

    The label or vector, if there is one, shifts the channels before the first block.

    Attributes:
        features: channels of the hidden layers.
        out_channels: channels of the output.
        num_blocks: number of residual blocks.
        num_classes: number of labels, or width of vectors; 0 for none.
        zero_init: start with an output of zero.

    Source: Identity Mappings in Deep Residual Networks, https://arxiv.org/abs/1603.05027.
    """

    features: int
    out_channels: int
    num_blocks: int = 2
    num_classes: int = 0
    zero_init: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], cond: Cond = None) -> Float[Array, "n h w out"]:
        """Maps `x [n, h, w, c]` to `[n, h, w, out_channels]`, given labels `cond [n]` or vectors `[n, num_classes]`.

        Raises:
            ValueError: if there are classes and no label, or a vector of another width.
        """
        x = Conv(self.features, (3, 3))(x)
        if self.num_classes:
            x = x + self._shift(needed(cond, self.num_classes))[:, None, None]
        for _ in range(self.num_blocks):
            hidden = Conv(self.features, (3, 3))(nn.silu(nn.LayerNorm()(x)))
            x = x + Dense(self.features)(nn.silu(hidden))
        kernel_init = nn.initializers.zeros if self.zero_init else nn.initializers.lecun_normal()
        return Dense(self.out_channels, kernel_init=kernel_init)(nn.silu(nn.LayerNorm()(x)))

    def _shift(self, cond: Any) -> Float[Array, "n features"]:
        if cond.ndim == 1:
            return nn.Embed(self.num_classes, self.features)(known_or_too_large(cond, self.num_classes))
        if cond.shape[1:] != (self.num_classes,):
            raise ValueError(f"expected vectors of width {self.num_classes} in cond, got shape {cond.shape}")
        return Dense(self.features)(cond)
