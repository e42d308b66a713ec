r"""Residual flows: layers z = x + g(x) with contractions g, and unbiased likelihoods for their training.

    (1)  actnorm, residual layer, actnorm, residual layer, ...
    (2)  g is an MLP whose kernels have largest singular value at most `limit`, with activations of slope at most 1, so
         that |g(x) - g(y)| <= c |x - y| with c = limit^(number of dense layers)

The loss estimates log-determinants by Russian roulette, and largest singular values by a power iteration that goes on
from step to step in `carry`; everything else takes both exactly.

Sources: Invertible Residual Networks, https://arxiv.org/abs/1811.00995; Residual Flows for Invertible Generative
Modeling, https://arxiv.org/abs/1906.02735.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxgen.bijections import Bijection, actnorm, chain, exact_log_det, flow, repeat, residual, roulette_log_det
from jaxgen.core import Model
from jaxgen.nets import spectral
from jaxgen.nets.mlp import MLP
from jaxgen.types import Batch, Carry, Metrics, Params, PRNGKey

__all__ = ["residual_flow"]


def residual_flow(
    num_dims: int,
    *,
    num_layers: int = 8,
    features: Sequence[int] = (64, 64),
    limit: float = 0.97,
    num_power_iterations: int = 1,
    num_inverse_iterations: int = 100,
    num_classes: int = 0,
) -> Model:
    """Builds a residual flow of vectors (1).

    Args:
        num_dims: D, the number of data dimensions; `log_prob` takes D forward derivatives of each layer.
        num_layers: number of residual layers; they run as one `lax.scan`.
        features: widths of the hidden layers of each g, an `MLP`.
        limit: largest singular value of a kernel (2), in (0, 1).
        num_power_iterations: power iterations of each kernel in a training step.
        num_inverse_iterations: k, the fixed-point iterations of the inverse, whose relative error is about c^k.
        num_classes: number of labels, or width of the vectors, in `cond`; 0 ignores `cond`.

    Returns:
        A `Model` of reals `[n, D]` with exact `log_prob`, an `elbo` whose mean it is, `encode` and `decode`; its `init`
        looks at the batch, and its `carry` holds one vector for every kernel.

    Raises:
        ValueError: if a number is out of range.

    Sources: https://arxiv.org/abs/1811.00995, https://arxiv.org/abs/1906.02735.
    """
    if num_dims < 1 or num_power_iterations < 1 or not 0 < limit < 1:
        raise ValueError(
            f"expected num_dims >= 1, num_power_iterations >= 1 and limit in (0, 1), got {num_dims}, "
            f"{num_power_iterations} and {limit}"
        )
    net = MLP(tuple(features), num_dims, num_classes, spectral.lip_swish)
    limited = functools.partial(spectral.limited, limit=limit)

    def layers(log_det: Callable[[Any], Any], constrain: Callable[[Params], Params]) -> Bijection:
        def layer(index: Any) -> Bijection:
            own = residual(net, log_det(index), constrain=constrain, num_iterations=num_inverse_iterations)
            return chain(actnorm(), own)

        return repeat(layer, num_layers)

    def roulette(constrain: Callable[[Params], Params]) -> Callable[[PRNGKey], Bijection]:
        return lambda key: layers(lambda index: roulette_log_det(jax.random.fold_in(key, index)), constrain)

    exact = layers(lambda index: exact_log_det, limited)
    model = flow(exact, (num_dims,), noisy=roulette(limited))
    constrained = flow(exact, (num_dims,), noisy=roulette(lambda params: params))

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        net_key, vector_key = jax.random.split(key)
        params, _ = model.init(net_key, batch)
        return params, spectral.power_iteration(params, spectral.start_vectors(vector_key, params), 20)

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Any, tuple[Carry, Metrics]]:
        vectors = spectral.power_iteration(params, carry, num_power_iterations)
        norms = functools.partial(spectral.norms, vectors=vectors)
        value, (_, metrics) = constrained.loss(limited(params, norms_of=norms), (), key, batch)
        return value, (vectors, metrics)

    return model._replace(init=init, loss=loss)
