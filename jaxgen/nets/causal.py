r"""Networks of elements in an order, with one call for the whole sequence and one for the next element.

For elements x_0 .. x_{T-1}, a causal network gives for each what its conditional depends on, from those before it:

    (1)  output_i = f_i(x_0 .. x_{i-1}; context),   context = g(cond)

as one pass over all elements (`outputs`), or element by element (`start`, `step`): each layer then keeps what it needs
of the elements before in the module's `cache` collection, which here is an explicit tree of arrays.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Num

from jaxgen.nets.labels import known_or_too_large, needed
from jaxgen.types import Cond, Params, PRNGKey

__all__ = ["Causal", "init", "labelled", "outputs", "start", "step"]


class Causal(nn.Module):
    """The base of causal networks.

    They are called as `net(x, context)` with all elements `x [n, ...]`, for outputs `[n, ..., k]` of all elements; or
    as `net(previous, context, position)` with the element before a position (ignored at position 0), for the output
    of that position alone, `[n, k]`. Dropout is active when a `dropout` key is given.
    """

    def context(self, cond: Cond) -> Any:
        """What is computed of `cond` once, before the first element; here `cond` itself."""
        return cond


def init(net: Causal, key: PRNGKey, x: Any, cond: Cond) -> Params:
    """Parameters of a network for sequences like `x [n, ...]`."""
    return net.init(key, x, cond, method=_whole)["params"]


def _whole(net: Causal, x: Any, cond: Cond) -> Any:
    return net(x, net.context(cond))


def outputs(net: Causal, params: Params, x: Any, cond: Cond, key: PRNGKey | None = None) -> Any:
    """(1) for every element in one pass, `[n, ..., k]`; with dropout if there is a key."""
    rngs = None if key is None else {"dropout": key}
    return net.apply({"params": params}, x, cond, rngs=rngs, method=_whole)


def start(net: Causal, params: Params, element: Any, cond: Cond, **options: Any) -> Any:
    """Cache and context before the first element; of `element [n, ...]` only shape and type matter."""
    context = net.apply({"params": params}, cond, method=net.context)
    first = jnp.zeros((), jnp.int32)
    call = lambda: net.apply({"params": params}, element, context, first, **options, mutable=["cache"])  # noqa: E731
    shapes: Any = jax.eval_shape(call)[1]
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), context


def step(net: Causal, params: Params, state: Any, previous: Any, position: Any, **options: Any) -> tuple[Any, Any]:
    """(1) for one element: `((cache, context), x_{i-1} [n, ...], i) -> ((cache, context), output_i [n, k])`.

    Options are further arguments of the network, the same as for `start`.
    """
    cache, context = state
    output, cache = net.apply({"params": params, **cache}, previous, context, position, **options, mutable=["cache"])
    return (cache, context), output


def labelled(cond: Cond, num_classes: int, num: int) -> Num[Array, "n ..."]:
    """Labels `[n]`, or vectors `[n, num_classes]`; zeros for a network without classes.

    Labels out of range, which cannot raise where they are traced, give NaN once they are embedded.

    Raises:
        ValueError: if there are classes and no label.
    """
    if num_classes == 0:
        return jnp.zeros(num, jnp.int32)
    return known_or_too_large(needed(cond, num_classes), num_classes)
