r"""Masked networks: output i depends on the inputs that come before i in an order, and on nothing else.

Every unit has a degree, and a connection from unit a to unit b is kept where

    (1)  between inputs and hidden units, and among these:   degree(a) <= degree(b)
    (2)  from the last hidden layer to the outputs:          degree(a) <  degree(b)

Input i and the outputs of i have its place in the order as their degree, 0 .. d - 1; hidden units have degrees
0 .. d - 2. A path from input j to output i then exists only where degree(j) < degree(i). What the network is
conditioned on has degree -1, so that everything may see it, and with it some hidden units have degree -1: they see
nothing else, and are what the first output of the order is computed from.

Element by element, no unit is computed twice. Once the inputs of degree 0 .. i - 1 are known, so are by (1) all units
of degree i - 1, layer by layer, and of these and the ones before, by (2), the output of degree i. Units that are not
known yet are kept as zeros, which leaves their connections out without a mask:

    (3)  h_l(units of degree i - 1) = act(h_(l-1) W_l(:, these units) + b_l(these units)),   i = 0, 1, ..

so that all elements together cost what one pass costs.

Source: MADE: Masked Autoencoder for Distribution Estimation, https://arxiv.org/abs/1502.03509.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxgen.nets.causal import Causal
from jaxgen.nets.mlp import append_label
from jaxgen.types import Cond, PRNGKey

__all__ = ["Degrees", "MaskedDense", "MaskedMLP", "degrees", "random_degrees"]


class Degrees(NamedTuple):
    """Degrees of all units of a masked network.

    Attributes:
        order: place of every input in the order, a permutation of 0 .. d - 1, `[d]`.
        hidden: degrees of the units of each hidden layer, -1 .. d - 2, `[width]` each.
    """

    order: Any
    hidden: tuple[Any, ...]


def degrees(
    num_dims: int, widths: Sequence[int], *, order: Sequence[int] | None = None, conditional: bool = False
) -> Degrees:
    """Degrees that take turns among the hidden units of every layer.

    Args:
        num_dims: d, the number of inputs.
        widths: hidden units of each layer.
        order: place of every input in the order; 0, ..., d - 1 if not given.
        conditional: whether there is something that the network is conditioned on.

    Raises:
        ValueError: if the order is no permutation of 0, ..., d - 1.
    """
    order = tuple(range(num_dims)) if order is None else tuple(order)
    if sorted(order) != list(range(num_dims)):
        raise ValueError(f"order must be a permutation of 0, ..., {num_dims - 1}, got {order}")
    turns = tuple(jnp.arange(width) % _num_degrees(num_dims, conditional=conditional) - conditional for width in widths)
    return Degrees(jnp.array(order), turns)


def random_degrees(key: PRNGKey, num_dims: int, widths: Sequence[int], *, conditional: bool = False) -> Degrees:
    """A random order and random degrees of hidden units, not below the lowest of the layer before.

    One key for each of several masks makes the ensemble of the paper, section 4.

    Args:
        key: random key.
        num_dims: d, the number of inputs.
        widths: hidden units of each layer.
        conditional: whether there is something that the network is conditioned on.
    """
    order_key, *keys = jax.random.split(key, 1 + len(widths))
    lowest, hidden = jnp.array(-1 if conditional else 0), []
    for key, width in zip(keys, widths, strict=True):
        hidden.append(jax.random.randint(key, (width,), lowest, jnp.maximum(num_dims - 1, lowest + 1)))
        lowest = hidden[-1].min()
    return Degrees(jax.random.permutation(order_key, num_dims), tuple(hidden))


class MaskedDense(nn.Module):
    """A dense layer some of whose connections are cut.

    Attributes:
        features: number of outputs.
        kernel_init: start of the connections, before they are cut.
    """

    features: int
    kernel_init: Callable[..., Any] = nn.initializers.lecun_normal()

    def __call__(self, x: Float[Array, "n a"], mask: Bool[Array, "a b"]) -> Float[Array, "n b"]:
        """Maps `x [n, a]` along the connections where `mask [a, b]` is true."""
        kernel, bias = self.weights(x.shape[-1])
        return x @ (kernel * mask) + bias

    @nn.compact
    def weights(self, num_inputs: int) -> tuple[Float[Array, "a b"], Float[Array, " b"]]:
        """All connections `[a, b]`, and the biases `[b]`."""
        kernel = self.param("kernel", self.kernel_init, (num_inputs, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class MaskedMLP(Causal):
    """Dense layers whose output i depends on the inputs before i in an order: MADE's network.

    As a `Causal` network it takes all elements so far in the place of the one before: `causal.step(net, params, state,
    x, i)` is (3), with the elements that stand before place i of the order in `x [n, d]`, and zeros elsewhere.

    Attributes:
        widths: hidden units of each layer.
        outputs_per_dim: k, the number of outputs for each input.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.
        order: place of every input in the order; 0, ..., d - 1 if not given.
        activation: nonlinearity of the hidden layers.
        zero_init: start with an output of zero.

    Source: MADE: Masked Autoencoder for Distribution Estimation, https://arxiv.org/abs/1502.03509.
    """

    widths: Sequence[int]
    outputs_per_dim: int
    num_classes: int = 0
    order: Sequence[int] | None = None
    activation: Callable[[Any], Any] = nn.silu
    zero_init: bool = False

    @nn.compact
    def __call__(
        self, x: Shaped[Array, "n d"], context: Cond = None, position: Any = None, masks: Degrees | None = None
    ) -> Float[Array, "n *d k"]:
        """Maps `x [n, d]` and labels `[n]` or vectors `[n, c]` to `[n, d, k]`; or to `[n, k]`, one place of the order.

        Other degrees than those of `order` may be handed over as `masks` (traced, too), with the same parameters; place
        by place, what is done with these cannot be differentiated backward.

        Raises:
            ValueError: if there are classes and no label, or the order does not fit the inputs.
        """
        num_dims, conditional = x.shape[-1], self.num_classes > 0
        units = masks or degrees(num_dims, self.widths, order=self.order, conditional=conditional)
        h = append_label(x.astype(jnp.float32), context, self.num_classes)
        below = jnp.concatenate([units.order, jnp.full(h.shape[-1] - num_dims, -1)])
        for index, (width, above) in enumerate(zip(self.widths, units.hidden, strict=True)):
            layer = MaskedDense(width)
            if position is None:
                h = self.activation(layer(h, _at_most(below, above)))  # (1)
            else:
                known: Any = self.variable("cache", f"hidden_{index}", jnp.zeros, (h.shape[0], width))
                size = math.ceil(width / _num_degrees(num_dims, conditional=conditional))
                compute = _units_of(h, *layer.weights(h.shape[-1]), self.activation)
                h = known.value = _fill(known.value, above == position - 1, compute, size, once=masks is None)  # (3)
            below = above
        kernel_init = nn.initializers.zeros if self.zero_init else nn.initializers.lecun_normal()
        layer, num = MaskedDense(num_dims * self.outputs_per_dim, kernel_init), self.outputs_per_dim
        if position is None:
            outputs = jnp.repeat(units.order, num)
            return layer(h, _at_most(below, outputs - 1)).reshape(-1, num_dims, num)  # (2)
        element = jnp.argmax(units.order == position)
        return _units_of(h, *layer.weights(h.shape[-1]), lambda y: y)(element * num + jnp.arange(num))


def _at_most(below: Int[Array, " a"], above: Int[Array, " b"]) -> Bool[Array, "a b"]:
    return below[:, None] <= above


def _num_degrees(num_dims: int, *, conditional: bool) -> int:
    """How many degrees hidden units may have."""
    return max(num_dims - 1 + conditional, 1)


def _units_of(x: Any, kernel: Any, bias: Any, activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`indices [k] -> [n, k]`, those units of a layer over `x [n, a]`; an index beyond the last gives the last."""
    return lambda unit: activation(x @ kernel.at[:, unit].get(mode="clip") + bias.at[unit].get(mode="clip"))


def _fill(known: Any, missing: Any, compute: Callable[[Any], Any], size: int, *, once: bool) -> Any:
    """`known [n, width]` with the units `missing [width]`, `size` at a time; `once` if there are no more of them."""

    def some(state: tuple[Any, Any]) -> tuple[Any, Any]:
        known, missing = state
        unit = jnp.nonzero(missing, size=size, fill_value=missing.size)[0]
        return known.at[:, unit].set(compute(unit), mode="drop"), missing.at[unit].set(False, mode="drop")

    state = (known, missing)
    return (some(state) if once else jax.lax.while_loop(lambda state: state[1].any(), some, state))[0]
