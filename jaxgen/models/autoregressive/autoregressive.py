r"""Autoregressive models: the exact likelihood of integers, one element at a time.

With the elements x_0 .. x_{T-1} of an example in the order of its axes (pixels row by row, say), and a causal network:

    (1)  ln p(x|c) = sum_i ln p(x_i | x_0 .. x_{i-1}, c),   the conditional of i described by output_i of the network
    (2)  sample: x_i from its conditional, i = 0, 1 .. T-1, by the cached loop `samplers.decode`
    (3)  completion: the same, with the first k elements given
    (4)  with an end token e: p(x_i = e | x_{i-1} = e) = 1, so that texts end, and their probabilities sum to one

One pass over all elements gives (1); (2) and (3) take one cached step of the network for each element.

Source: The Neural Autoregressive Distribution Estimator, https://proceedings.mlr.press/v15/larochelle11a.html; the
networks name their own.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.core import Model
from jaxgen.distributions import Conditional, categorical_ending, check_levels, stored, sum_event, tokens
from jaxgen.nets import causal
from jaxgen.nets.causal import Causal
from jaxgen.samplers import beam, decode
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["autoregressive", "complete", "search", "stepwise"]


def _split(shape: Sequence[int], conditional: Conditional) -> tuple[int, tuple[int, ...]]:
    """The number of positions of an example and the shape of one element.

    Raises:
        ValueError: if the shape has too few axes, or a side below 1.
    """
    num_axes = len(shape) - conditional.event_ndim
    if num_axes < 1 or min(shape) < 1:
        raise ValueError(f"expected at least {conditional.event_ndim + 1} sides of at least 1, got {tuple(shape)}")
    return math.prod(shape[:num_axes]), tuple(shape[num_axes:])


def _over(ending: Callable[..., Any] | None, end: int | None) -> Callable[..., Any] | None:
    """(4): `(output, after an end) -> output`; `None` without an end.

    Raises:
        ValueError: if there is an end and no `ending`.
    """
    if end is None:
        return None
    if ending is None:
        raise ValueError(f"this density cannot tell an end, got end={end}: see `distributions.with_end`")
    return lambda output, after: ending(output, end=end, certain=after)


def stepwise(
    net: Causal, params: Params, *, end: int | None = None, ending: Callable[..., Any] | None = categorical_ending
) -> Callable[..., Any]:
    """The step of `samplers.decode` for a network with (4): `(state, previous, position) -> (state, output)`.

    Args:
        net: the network.
        params: its parameters.
        end: the end token, if there is one.
        ending: that of the `Conditional`; by default outputs are logits.

    Raises:
        ValueError: if there is an end and the density cannot tell it.
    """
    over = _over(ending, end)

    def step(state: Any, previous: Any, position: Any) -> tuple[Any, Any]:
        state, output = causal.step(net, params, state, previous, position)
        return state, over(output, (previous == end) & (position > 0)) if over else output

    return step


def complete(
    net: Causal, shape: Sequence[int], conditional: Conditional, *, end: int | None = None
) -> Callable[..., Data]:
    """Completes examples whose first part is given: the lower half of images, the rest of texts.

    Args:
        net: the network of the model.
        shape: shape of one example.
        conditional: the density of an element; its `sample` chooses.
        end: the end token, if there is one.

    Returns:
        `(params, key, given [n, ...], cond=None) -> x [n, *shape]`, where `given` holds the first elements in order,
        `[n, 14, 28, 1]` for the upper half of an image of `[28, 28, 1]`.

    Raises:
        ValueError: when called, if more is given than one example holds, or levels that there are not.
    """
    length, element = _split(shape, conditional)

    def completed(params: Params, key: PRNGKey, given: Data, cond: Cond = None) -> Data:
        check_levels(given, conditional.num_levels, "the model")
        given = tokens(given, "complete").reshape(given.shape[0], -1, *element)
        if given.shape[1] > length:
            raise ValueError(f"a context of {length} positions cannot hold a prompt of {given.shape[1]}")
        rest = jnp.zeros((given.shape[0], length - given.shape[1], *element), jnp.int32)
        state = causal.start(net, params, jnp.zeros((given.shape[0], *element), jnp.int32), cond)
        step = stepwise(net, params, end=end, ending=conditional.ending)
        padded = jnp.concatenate([given, rest], 1)
        x = decode.decode(step, conditional.sample, key, state, padded, given.shape[1])
        x = x.reshape(-1, *shape)
        return stored(x, conditional.num_levels)

    return completed


def search(
    net: Causal, length: int, *, num_beams: int, end: int | None = None, length_power: float = 0.0
) -> Callable[..., Any]:
    """Searches the most probable texts by `samplers.beam`; what depends on `cond` alone is computed once for a search.

    Args:
        net: the network of a model of texts.
        length: positions of a text.
        num_beams: texts that are kept at every position.
        end: the end token, if there is one.
        length_power: of the length by which log-probabilities are divided before texts are compared.

    Returns:
        `(params, num, cond=None) -> (x [num, num_beams, length], ln p(x) [num, num_beams])`, the best first; its errors
        are those of `beam_search`.

    Source: Google's Neural Machine Translation System, https://arxiv.org/abs/1609.08144.
    """

    def searched(params: Params, num: int, cond: Cond = None) -> Any:
        state = causal.start(net, params, jnp.zeros(num, jnp.int32), cond)
        state = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_beams, axis=0), state)
        return beam.beam_search(
            stepwise(net, params, end=end),
            state,
            num=num,
            length=length,
            num_beams=num_beams,
            end=end,
            length_power=length_power,
        )

    return searched


def autoregressive(net: Causal, shape: Sequence[int], conditional: Conditional, *, end: int | None = None) -> Model:
    """Builds an autoregressive model of integers.

    Args:
        net: the causal network: `nets.transformer.Transformer` and others; its output describes one element.
        shape: shape of one example, elements in the order of its axes; the last `conditional.event_ndim` axes are
            those of one element.
        conditional: the density of an element given the output, such as `categorical_conditional(num_levels)`.
        end: the token after which there are only end tokens, if there is one; the conditional must know `ending`.

    Returns:
        A `Model` of integers `[n, *shape]` with `log_prob`, exact, in nats; its `loss` is the mean negative `log_prob`.
        Samples are `uint8`, or `int32` for more than 256 levels.

    Raises:
        ValueError: if the shape has too few axes, the end is no level, or the conditional has no end; when called, if
            the data is not of an integer type or, of `log_prob`, has another shape; and, where they are not traced, if
            there are levels or labels that there are not.

    Source: Pixel Recurrent Neural Networks, https://arxiv.org/abs/1601.06759.
    """
    _, element = _split(shape, conditional)
    if end is not None and not 0 <= end < conditional.num_levels:
        raise ValueError(f"the end must be a level of 0 to {conditional.num_levels - 1}, got {end}")
    over = _over(conditional.ending, end)

    def terms(params: Params, key: PRNGKey | None, x: Data, cond: Cond) -> PerExample:
        found = tokens(x, "autoregressive")
        check_levels(x, conditional.num_levels, "the model")
        output = causal.outputs(net, params, found, cond, key)
        if over is not None:
            output = over(output, jnp.pad(found[:, :-1] == end, ((0, 0), (1, 0))))
        return sum_event(conditional.log_prob(found, output))

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        cond = jax.tree.map(lambda leaf: leaf[:1], batch.cond)
        return causal.init(net, key, jnp.zeros((1, *shape), jnp.int32), cond), ()

    def loss(
        params: Params, carry: Carry, key: PRNGKey, batch: Batch
    ) -> tuple[Float[Array, ""], tuple[Carry, Metrics]]:
        return -terms(params, key, batch.x, batch.cond).mean(), (carry, {})

    def log_prob(params: Params, x: Data, cond: Cond = None) -> PerExample:
        if x.shape[1:] != tuple(shape):
            raise ValueError(f"expected examples of shape {tuple(shape)}, got {x.shape[1:]}")
        return terms(params, None, x, cond)

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        return complete(net, shape, conditional, end=end)(params, key, jnp.zeros((num, 0, *element), jnp.int32), cond)

    return Model(init=init, loss=loss, sample=sample, log_prob=log_prob)
