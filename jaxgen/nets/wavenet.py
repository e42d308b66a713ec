r"""WaveNet: each sample of a sound from those before it, by dilated causal convolutions.

With the samples scaled to [-1, 1], a condition c_t, and layers of dilations 1, 2, 4 .. 2^(m-1), several times over:

    (1)  h_t = W v_{t-1} + b,   v_{-1} = 0;   with companding, W (v_{t-1}, c(v_{t-1})) + b
    (2)  a, b = W_0 h_{t-d} + W_1 h_t + V c_t,   z = tanh(a) sigmoid(b)
    (3)  h <- h + W_r z,   skip <- skip + W_s z
    (4)  output_t = W'' relu(W' relu(skip))

c_t is the sum of vectors of the labels (the same for all t: a digit, a speaker) and of a sequence that is slower by a
whole factor, each of its frames standing for as many samples. To decode, each layer keeps its last d inputs in a ring.

Sounds are made levels by the law  level = (L - 1) (1 + c(s)) / 2,  c(s) = sign(s) ln(1 + mu |s|) / ln(1 + mu),
mu = L - 1. Those that keep many levels, on the linear scale, are told in both ways, since quiet samples lie next to 0.

Sources: WaveNet: A Generative Model for Raw Audio, https://arxiv.org/abs/1609.03499; Fast Wavenet Generation Algorithm,
https://arxiv.org/abs/1611.09482.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Integer, Num

from jaxgen.distributions import compand, expand
from jaxgen.nets.causal import Causal
from jaxgen.nets.convolution import convolve
from jaxgen.nets.dense import Dense
from jaxgen.nets.labels import check_labels, known_or_too_large
from jaxgen.types import Cond

__all__ = ["DilatedConv", "WaveNet", "ends", "mu_law", "mu_law_inverse"]

Sequences = Float[Array, "n t _"]


def mu_law(sound: Float[Array, "*shape"], num_levels: int = 256) -> Integer[Array, "*shape"]:
    """Levels 0 .. L - 1 of a sound in [-1, 1], finer where it is quiet."""
    mu = num_levels - 1.0
    return jnp.round((compand(sound, mu) + 1) / 2 * mu).astype(jnp.int32)


def mu_law_inverse(levels: Num[Array, "*shape"], num_levels: int = 256) -> Float[Array, "*shape"]:
    """The sound in [-1, 1] of levels 0 .. L - 1."""
    mu = num_levels - 1.0
    return expand(2 * levels / mu - 1.0, mu)


def ends(sequence: Float[Array, "n frames _"]) -> tuple[Bool[Array, "n frames"], Bool[Array, "n frames"]]:
    """In which frames of a slower sequence an end is certain, and in which it is impossible: `ending` of `WaveNet`.

    A sound is over where channel 0 is on, and goes on in all frames before the last of the others.
    """
    over = jnp.pad(sequence[..., 0] > 0, ((0, 0), (0, 1)), constant_values=True)
    return over[:, :-1], ~over[:, 1:]


class DilatedConv(nn.Module):
    """The convolution over t and t - d of (2).

    Attributes:
        features: channels of the output.
        dilation: d.
    """

    features: int
    dilation: int

    @nn.compact
    def __call__(self, h: Sequences, position: Any = None) -> Sequences:
        """Maps `h [n, t, c]` to `[n, t, features]`; with a position, `h [n, 1, c]` is what stands there."""
        init = nn.initializers.lecun_normal(in_axis=(0, 1))
        kernel = self.param("kernel", init, (2, h.shape[-1], self.features))
        if position is None:
            return convolve(
                h,
                kernel,
                (1,),
                [(self.dilation, 0)],
                rhs_dilation=(self.dilation,),
                dimension_numbers=("NTC", "TIO", "NTC"),
            )
        ring: Any = self.variable("cache", "ring", jnp.zeros, (h.shape[0], self.dilation, h.shape[-1]))
        slot = position % self.dilation
        old = jax.lax.dynamic_slice_in_dim(ring.value, slot, 1, axis=1)
        ring.value = jax.lax.dynamic_update_slice_in_dim(ring.value, h, slot, axis=1)
        return old @ kernel[0] + h @ kernel[1]


class WaveNet(Causal):
    """Outputs for each sample of a sound, which describe its conditional: logits or a mixture of logistics.

    Attributes:
        length: samples of a sound.
        num_levels: number of values of a sample.
        num_outputs: numbers of an output, `conditional.num_outputs`.
        features: channels of the layers.
        skip_features: channels of the sum over layers.
        dilations: of each layer.
        num_classes: numbers of values of each label, `(10, 6)` for a digit and a speaker; none by default.
        num_local: channels of the slower sequence; 0 for none.
        companding: mu of the c of (1); 0 for samples that are told once, as they are.
        ending: `conditional.ending` with its end bound, where the slower sequence tells when the sound is over, see
            `ends`; `None` elsewhere.

    Raises:
        ValueError: if a dilation or size is below 1, the companding is negative, or an ending is given without a slower
            sequence.
    """

    length: int
    num_levels: int
    num_outputs: int
    features: int = 32
    skip_features: int = 64
    dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) * 2
    num_classes: Sequence[int] = ()
    num_local: int = 0
    companding: float = 0.0
    ending: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        sizes = (self.length, self.num_outputs, self.features, self.skip_features, *self.dilations, *self.num_classes)
        if min(sizes) < 1 or not self.dilations:
            raise ValueError(f"sizes and dilations of a WaveNet must be at least 1, got {sizes}")
        if self.companding < 0:
            raise ValueError(f"companding must be at least 0, got {self.companding}")
        if self.ending is not None and not self.num_local:
            raise ValueError("an ending needs a slower sequence that tells it, got num_local=0")
        super().__post_init__()

    def context(self, cond: Cond) -> Any:
        """Labels and the slower sequence, checked.

        `cond` holds labels `[n]` or `[n, k]`; with a slower sequence it is `(labels or None, sequence [n, frames, c])`.
        Labels out of range give NaN where they are traced.

        Raises:
            ValueError: if a label or the sequence is missing, or its frames do not divide the length; and, where they
                are not traced, if a label is out of range.
        """
        labels: Any
        sequence: Any
        labels, sequence = cond if self.num_local else (cond, None)
        if not self.num_classes:
            labels = None
        elif labels is None or labels.reshape(labels.shape[0], -1).shape[1] != len(self.num_classes):
            found = None if labels is None else labels.shape
            raise ValueError(f"a network of classes {tuple(self.num_classes)} needs as many labels, got shape {found}")
        for i, size in enumerate(self.num_classes):
            check_labels(labels.reshape(labels.shape[0], -1)[:, i], size)
        if self.num_local and (sequence.shape[2] != self.num_local or self.length % sequence.shape[1]):
            raise ValueError(
                f"expected frames that divide the length {self.length}, of {self.num_local} channels, got a sequence "
                f"of shape {sequence.shape}"
            )
        return labels, sequence

    @nn.compact
    def __call__(self, x: Num[Array, "n ..."], context: Any, position: Any = None) -> Any:
        """Outputs `[n, t, k]` of sounds `[n, t]`; or of one sample, `[n] -> [n, k]`."""
        v = (2 * x.astype(jnp.float32) / (self.num_levels - 1) - 1).reshape(x.shape[0], -1, 1)
        v = jnp.concatenate([v, compand(v, self.companding)], -1) if self.companding else v
        v = jnp.pad(v[:, :-1], ((0, 0), (1, 0), (0, 0))) if position is None else jnp.where(position == 0, 0.0, v)
        h, skip, condition = Dense(self.features)(v), jnp.zeros(()), self._condition(context, v.shape[1], position)
        for dilation in self.dilations:
            inner = DilatedConv(2 * self.features, dilation)(h, position) + Dense(2 * self.features)(condition)
            a, b = jnp.split(inner, 2, axis=-1)
            changed, skipped = jnp.split(
                Dense(self.features + self.skip_features)(jnp.tanh(a) * nn.sigmoid(b)), [self.features], axis=-1
            )
            h, skip = h + changed, skip + skipped
        hidden = Dense(self.skip_features)(nn.relu(skip))
        output = Dense(self.num_outputs)(nn.relu(hidden))
        if self.ending is not None:
            frame = self._frame(context[1], output.shape[1], position)
            certain, impossible = (mask[:, frame] for mask in ends(context[1]))
            output = self.ending(output, certain=certain, impossible=impossible)
        return output if position is None else output[:, 0]

    def _condition(self, context: Any, num: int, position: Any) -> Any:
        """c_t `[n, t or 1, features]`; a single zero without a condition, where only the biases of (2) are left."""
        labels, sequence = context
        total: Any = jnp.zeros((1, 1, 1))
        for i, size in enumerate(self.num_classes):
            label = known_or_too_large(labels.reshape(labels.shape[0], -1)[:, i], size)
            total = total + nn.Embed(size, self.features, name=f"label_{i}")(label)[:, None]
        if self.num_local:
            frames = sequence[:, self._frame(sequence, num, position)]
            total = total + Dense(self.features, name="local")(frames)
        return total

    def _frame(self, sequence: Any, num: int, position: Any) -> Any:
        """Number of the frame of each sample."""
        where = jnp.arange(num) if position is None else position[None]
        return where * sequence.shape[1] // self.length
