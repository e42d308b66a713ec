r"""Variational dequantisation: the noise that makes reals of integers is learned, so that the bound comes closer.

With r uniform on (0, 1)^D, e = ln r - ln(1 - r), and a bijection e = g(v; x, cond) of noise, which a network shapes:

    (1)  u = sigmoid(v),  v = g^-1(e; x, cond)
    (2)  ln q(u|x) = sum_d [l(e_d) - l(v_d)] + ln|det de/dv|,  l(z) = ln sigmoid(z) + ln sigmoid(-z)
    (3)  ln w = ln p((x + u) / L) - ln q(u|x) - D ln L,  E[w] = P(x),  E[ln w] = ln P(x) - KL(q(u|x) || p(u|x))
    (4)  loss = the wrapped model's at y = (x + u) / L, held fixed, plus E ln q(u|x), which moves only q, along the
         gradient of -E[ln w] with p held fixed

Where g is the identity, q is uniform and all of this is `dequantize`. Where the wrapped loss is -E ln p(y), as that of
a flow, (4) is -E[ln w] but for constants, and both descend its gradient. A diffusion goes on to descend its own squared
error, while q is drawn towards its bound. So the loss has the gradient of (4), but the value of -E[ln w] for all of
them, in nats: a sum of squared errors and ln q says nothing, and rises while q is learned.

Source: Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design,
https://arxiv.org/abs/1902.00275, section 3.1.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.bijections import Bijection, Elementwise, scale_shift
from jaxgen.core import Model
from jaxgen.distributions import sum_event
from jaxgen.nets import pure
from jaxgen.transforms import cells
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["shape_noise", "shaped_noise", "variational_dequantize"]


def variational_dequantize(model: Model, num_levels: int, noise: Bijection, *, judge: Model | None = None) -> Model:
    """A model of reals in [0, 1) becomes a model of integers, by noise that is learned with it.

    Its `log_weight` and `elbo` are the bound (3), from the wrapped model's `log_prob`, or else from its `log_weight`
    and `elbo`; a probability flow with Hutchinson's divergence has an estimate there in place of ln p. `log_prob`,
    `energy` and `score` are `None`. Samples and decoded data are floor(L y), clipped to the levels, `uint8`; they do
    not depend on q. `core.importance_bound` closes what is left between the bound and ln P(x).

    For q the loss (4) takes the judge's `log_prob`, or else its `elbo`, or else its `log_weight`, at every step. A
    probability flow makes that dear: train with the diffusion wrapped, and one of `num_bound_times=1` as the judge, an
    evaluation of the network and its derivative by the data, and evaluate with `probability_flow` of it wrapped, by the
    same parameters.

    Args:
        model: a model of reals in [0, 1).
        num_levels: L, the number of levels, 2 <= L <= 256.
        noise: g of (1), a bijection of reals like x, such as `shape_noise(net)` or a chain of couplings. Its condition
            is `Batch((2 x + 1) / L - 1, cond)`. What starts as the identity starts from uniform noise. Noise comes no
            nearer to 0 or 1 than 2^-15.
        judge: a model of the same reals and parameters, by whose likelihood q is trained, where that of the model costs
            more than a step of training should; the model itself by default.

    Returns:
        A `Model` of integers 0, ..., L - 1, with parameters `{"model": ..., "noise": ...}`. Its loss has the value of
        -E[ln w] in nats, by the judge, and the gradient of (4), which is another where the wrapped loss is not
        -E ln p(y). The metrics are the wrapped model's, its loss among them as `model_loss`.

    Raises:
        ValueError: if L is out of range, or the judge has no `log_prob`, `elbo` or `log_weight`; when called, if the
            data is not of an integer type.

    Source: https://arxiv.org/abs/1902.00275, section 3.1.
    """
    cells.check_levels(num_levels)
    density = _density(model if judge is None else judge)

    def noisy(params: Params, key: PRNGKey, x: Data, cond: Cond) -> tuple[Data, PerExample]:
        context = Batch(2 * cells.place(x, 0.5, num_levels) - 1, cond)
        u, log_noise = shaped_noise(noise, params["noise"], cells.uniform_noise(key, x), context)
        return cells.place(x, u, num_levels), log_noise

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        noise_key, init_key, key = jax.random.split(key, 3)
        x, cond = batch
        context = Batch(2 * cells.place(x, 0.5, num_levels) - 1, cond)
        params = {"noise": noise.init(init_key, _logit(cells.uniform_noise(noise_key, x)), context)}
        params["model"], carry = model.init(key, Batch(noisy(params, noise_key, x, cond)[0], cond))
        return params, carry

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Any, tuple[Carry, Metrics]]:
        """The gradient of (4) with the value of -ln w."""
        noise_key, density_key, key = jax.random.split(key, 3)
        x, cond = batch
        fixed = jax.lax.stop_gradient
        y, log_noise = noisy(params, noise_key, x, cond)
        own, (carry, metrics) = model.loss(params["model"], carry, key, Batch(fixed(y), cond))
        log_density = density(fixed(params["model"]), density_key, y, cond)
        gap = (log_noise - log_density).mean()
        value = fixed(gap) + math.prod(x.shape[1:]) * math.log(num_levels)
        moving = own + gap
        return value + (moving - fixed(moving)), (carry, {**metrics, "model_loss": own})

    return cells.of_integers(model, num_levels, noisy, lambda params: params["model"], init=init, loss=loss)


def shape_noise(net: Any, elementwise: Elementwise | None = None) -> Bijection:
    """Noise whose elements are independent, each shaped as a network of the data tells.

    Args:
        net: a linen module `(y [n, ...], cond) -> raw`, y the data in (-1, 1), with `elementwise.num_params` outputs
            for each element (those of one element next to each other). Start its output at zero, for uniform noise.
        elementwise: the map of single numbers; `scale_shift()` by default.

    Returns:
        A `Bijection` for `variational_dequantize`.

    Raises:
        ValueError: when called, if the network has another number of outputs.
    """
    elementwise = scale_shift() if elementwise is None else elementwise

    def init(key: PRNGKey, v: Data, context: Batch) -> Params:
        del v
        return pure.init(net, key, *context)

    def apply(function: Callable[..., Any], params: Params, v: Data, context: Batch) -> tuple[Data, PerExample]:
        raw = pure.apply(net, params, *context)
        if raw.size != v.size * elementwise.num_params:
            raise ValueError(
                f"shape_noise needs {elementwise.num_params} outputs of its network for each element of {v.shape}, got "
                f"outputs of shape {raw.shape}"
            )
        changed, log_det = function(raw.reshape(*v.shape, elementwise.num_params), v)
        return changed, sum_event(log_det)

    return Bijection(
        init,
        lambda params, v, context: apply(elementwise.forward_and_log_det, params, v, context),
        lambda params, e, context: apply(elementwise.inverse_and_log_det, params, e, context),
    )


def shaped_noise(
    noise: Bijection, params: Params, r: Float[Array, "n ..."], context: Batch
) -> tuple[Float[Array, "n ..."], PerExample]:
    """Noise u in (0, 1) from uniform r, by (1), and ln q(u|x) by (2).

    Args:
        noise: g of (1).
        params: its parameters.
        r: numbers in (0, 1), `[n, ...]`.
        context: what the noise is conditioned on.

    Returns:
        u `[n, ...]`, kept off the border, and ln q `[n]` in nats.
    """
    e = _logit(r)
    v, log_det = noise.inverse_and_log_det(params, e, context)
    u = jnp.clip(jax.nn.sigmoid(v), cells.BORDER, 1 - cells.BORDER)
    return u, sum_event(_log_slope(e) - _log_slope(v)) - log_det


def _logit(r: Data) -> Data:
    return jnp.log(r) - jnp.log1p(-r)


def _log_slope(z: Data) -> Data:
    """The l of (2), logarithm of the slope of the sigmoid."""
    return -jax.nn.softplus(z) - jax.nn.softplus(-z)


def _density(model: Model) -> Callable[..., PerExample]:
    """`(params, key, y, cond) -> [n]`: what q is trained against."""
    log_prob = model.log_prob
    if log_prob is not None:
        return lambda params, key, y, cond: log_prob(params, y, cond)
    bound = model.elbo or model.log_weight
    if bound is None:
        raise ValueError("variational_dequantize needs a judge with log_prob, elbo or log_weight, and all are None")
    return bound
