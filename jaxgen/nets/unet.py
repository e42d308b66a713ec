"""The U-Net of diffusion models: residual blocks, group norm, self-attention, embeddings of noise level and class.

One network in the styles of `nets.blocks`, which also names the sources: `DDPM`, `DDPM_PLUS`, `NCSN_PLUS` and `ADM`.
Its parameter counts are the published ones.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Num

from jaxgen.nets.attention import attend
from jaxgen.nets.blocks import (
    DDPM,
    AttentionBlock,
    Embedding,
    Image,
    ResidualBlock,
    Size,
    Style,
    blur,
    conv_of_resized,
    embed,
    halved,
    norm,
)
from jaxgen.nets.winograd import Conv
from jaxgen.types import Cond

__all__ = ["UNet"]


class UNet(nn.Module):
    """A network from noisy images and their noise level to images of the same height and width.

    Level i works at 1/2^i of the resolution (rounded up, so that any size will do) with `channels * multipliers[i]`
    channels.

    Attributes:
        channels: width of the first level, a multiple of 4.
        multipliers: width of each level in units of `channels`.
        num_blocks: residual blocks per level on the way down; one more on the way up.
        attention_at: levels with self-attention, besides the middle.
        num_classes: number of labels; 0 for none.
        out_channels: channels of the output; those of the input by default.
        dtype: type of the computation; parameters and output are float32.
        style: how blocks are built, `DDPM`, `DDPM_PLUS`, `NCSN_PLUS` or `ADM` of `nets.blocks`, or one's own.
        remat: recompute the inside of every block in the backward pass: less memory for one more forward pass.
        attention: `(query, key, value) -> mixed values`, each `[n, positions, heads, width]`;
            `nets.attention.attend_fused` is the fused kernel of an NVIDIA GPU, in bfloat16.

    Raises:
        ValueError: if `channels` is no positive multiple of 4, or a level of `attention_at` does not exist.
    """

    channels: int = 32
    multipliers: Sequence[int] = (1, 2, 2)
    num_blocks: int = 1
    attention_at: Sequence[int] = ()
    num_classes: int = 0
    out_channels: int | None = None
    dtype: Any = jnp.float32
    style: Style = DDPM
    remat: bool = False
    attention: Callable[..., Any] = attend

    def __post_init__(self) -> None:
        if self.channels < 4 or self.channels % 4:
            raise ValueError(f"channels must be a positive multiple of 4, got {self.channels}")
        if not set(self.attention_at) <= set(range(len(self.multipliers))):
            levels = len(self.multipliers)
            raise ValueError(f"attention_at must name levels 0 to {levels - 1}, got {tuple(self.attention_at)}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Image, t: Num[Array, "n *k"], cond: Cond = None) -> Image:
        """Maps `x [n, h, w, c]`, levels `t [n]` or `[n, k]` and labels `cond [n]` to `[n, h, w, out_channels]`.

        Raises:
            ValueError: if there are classes and no label.
        """
        out_channels = self.out_channels or x.shape[-1]
        embedding = self._embed(t, cond)
        h, image = Conv(self.channels, (3, 3), dtype=self.dtype)(x), x
        skips = [h]
        for level in range(len(self.multipliers)):
            if level > 0:
                h = self._halve(h, embedding)
                if self.style.residual_input:
                    h = image = self._add_image(h, image)
                skips.append(h)
            for _ in range(self.num_blocks):
                h = self._block(h, embedding, level, attend=level in self.attention_at)
                skips.append(h)
        h = self._block(h, embedding, -1, attend=True)
        h = self._block(h, embedding, -1, attend=False)
        for level in reversed(range(len(self.multipliers))):
            for index in range(self.num_blocks + 1):
                attend = level in self.attention_at and (index == self.num_blocks or not self.style.attention_up_once)
                h = self._block(jnp.concatenate([h, skips.pop()], axis=-1), embedding, level, attend=attend)
            if level > 0:
                h = self._double(h, embedding, skips[-1])
        h = nn.silu(norm(h, self.style, self.dtype))
        h = Conv(out_channels, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(h)
        return h.astype(jnp.float32)

    def _embed(self, t: Num[Array, "n *k"], cond: Cond) -> Embedding:
        """Embedding of the noise level, and of the class if there are classes."""
        features = self.style.features(t, self.style.feature_multiple * self.channels)
        width = 4 * self.channels
        return embed(features, cond, width=width, num_classes=self.num_classes, dtype=self.dtype)

    def _block(self, x: Image, embedding: Embedding, level: int, *, attend: bool) -> Image:
        """A residual block with the width of a level (-1: the last), and attention."""
        width = self.channels * self.multipliers[level] if self.multipliers else self.channels
        h = self._lift(ResidualBlock)(width, self.style, dtype=self.dtype)(x, embedding)
        return self._lift(AttentionBlock)(self.style, self.attention, self.dtype)(h) if attend else h

    def _halve(self, x: Image, embedding: Embedding) -> Image:
        if self.style.resample_blocks:
            return self._resample(x, embedding, halved(x))
        return Conv(x.shape[-1], (3, 3), strides=2, dtype=self.dtype)(x)

    def _double(self, x: Image, embedding: Embedding, like: Image) -> Image:
        size = (like.shape[1], like.shape[2])
        if self.style.resample_blocks:
            return self._resample(x, embedding, size)
        return conv_of_resized(x, x.shape[-1], size, smooth=self.style.smooth, dtype=self.dtype)

    def _resample(self, x: Image, embedding: Embedding, size: Size) -> Image:
        return self._lift(ResidualBlock)(x.shape[-1], self.style, size, self.dtype)(x, embedding)

    def _add_image(self, x: Image, image: Image) -> Image:
        """Adds the image of the level above, filtered, convolved and halved."""
        h = Conv(x.shape[-1], (3, 3), strides=2, padding="VALID", dtype=self.dtype)(blur(image))
        return self.style.skip_scale * (x + h)

    def _lift(self, block: Any) -> Any:
        """The class of a block, under `remat` with the same name, so that the tree of parameters is the same."""
        if not self.remat:
            return block
        lifted = nn.remat(block)
        lifted.__name__ = block.__name__
        return lifted
