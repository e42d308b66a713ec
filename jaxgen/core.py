r"""The heart: a model is a record of pure functions, and one train step serves every family.

Every quantity is a natural logarithm (nats) for each example, of shape `[n]`:

    (1)  log_prob                    ln p(x|c)                       exact
    (2)  E[exp log_weight]         = p(x|c)                          importance weight
    (3)  E[elbo]                  <= ln p(x|c)                       bound
    (4)  energy                    = -ln p(x|c) + constant           unnormalised
    (5)  score                     = d ln p_t(x|c) / dx              at noise level t

A family that does not define a quantity leaves its field `None`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["DATA_AXIS", "Model", "TrainState", "bits_per_dim", "importance_bound", "init_state", "score", "train_step"]

DATA_AXIS = "data"
"""Name of the axis over which examples and chains are split across devices."""


class Model(NamedTuple):
    """A generative model: pure functions over a tree of parameters.

    Attributes:
        init: `(key, batch) -> (params, carry)`; of the batch only shapes and types matter unless the model says else.
        loss: `(params, carry, key, batch) -> (loss, (carry, metrics))`, a scalar, averaged over the batch.
        sample: `(params, key, num, cond=None) -> x [num, ...]`; `num` is static, `cond` has `num` rows.
        log_prob: `(params, x, cond=None) -> [n]`, exact ln p(x|cond) in nats; deterministic.
        log_weight: `(params, key, x, cond=None) -> [n]`, ln w with E[w] = p(x|cond).
        elbo: `(params, key, x, cond=None) -> [n]`, with E[elbo] <= ln p(x|cond).
        energy: `(params, x, cond=None) -> [n]`, -ln p(x|cond) up to a constant.
        score: `(params, x, t, cond=None) -> like x`, gradient of ln p_t(x|cond).
        encode: `(params, key, x, cond=None) -> latent`.
        decode: `(params, latent, cond=None) -> x`.
        carry_spec: a tree prefix of `PartitionSpec` for `carry`: `PartitionSpec(DATA_AXIS)` for leaves that are split
            over the devices along their first axis (chains), `PartitionSpec()` for leaves every device holds whole.
    """

    init: Callable[..., tuple[Params, Carry]]
    loss: Callable[..., tuple[Any, tuple[Carry, Metrics]]]
    sample: Callable[..., Any]
    log_prob: Callable[..., Any] | None = None
    log_weight: Callable[..., Any] | None = None
    elbo: Callable[..., Any] | None = None
    energy: Callable[..., Any] | None = None
    score: Callable[..., Any] | None = None
    encode: Callable[..., Any] | None = None
    decode: Callable[..., Any] | None = None
    carry_spec: Any = PartitionSpec()


class TrainState(NamedTuple):
    """Everything that training changes; what a checkpoint holds.

    Attributes:
        step: number of updates done so far, `int32` scalar.
        params: parameters.
        ema_params: exponential moving average of the parameters.
        opt_state: state of the optimiser.
        carry: what the loss remembers (chains, teachers, averages).
        key: the key that every step folds its number into.
    """

    step: Any
    params: Params
    ema_params: Params
    opt_state: Any
    carry: Carry
    key: Any


def init_state(model: Model, tx: optax.GradientTransformation, key: PRNGKey, batch: Batch) -> TrainState:
    """Makes the state before the first step; call it under `jax.jit`.

    Args:
        model: the model to train.
        tx: the optimiser.
        key: random key; one half initialises, the other is kept for the steps.
        batch: an example batch.

    Returns:
        A `TrainState` at step 0.
    """
    init_key, step_key = jax.random.split(key)
    params, carry = model.init(init_key, batch)
    return TrainState(jnp.zeros((), jnp.int32), params, params, tx.init(params), carry, step_key)


def train_step(
    model: Model, tx: optax.GradientTransformation, *, ema_decay: float = 0.0
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Binds model and optimiser to the one step that trains every family.

    The moving average after step k (counted from 0) is, with d = min(ema_decay, (1 + k) / (10 + k)),
    `ema = d * ema + (1 - d) * params`; `ema_decay = 0` makes it equal to the parameters.

    Args:
        model: the model to train.
        tx: the optimiser.
        ema_decay: decay of the moving average of the parameters, in [0, 1).

    Returns:
        `step(state, batch) -> (state, metrics)`, pure, in the global view (no axis name). The metrics are the loss's
        own and `loss` and `grad_norm`.

    Raises:
        ValueError: if `ema_decay` is not in [0, 1).
    """
    if not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay must be in [0, 1), got {ema_decay}")

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        value_and_grad = jax.value_and_grad(model.loss, has_aux=True)
        (loss, (carry, metrics)), grads = value_and_grad(state.params, state.carry, key, batch)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        ema_params = optax.incremental_update(params, state.ema_params, 1 - decay)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), **metrics}
        return TrainState(state.step + 1, params, ema_params, opt_state, carry, state.key), metrics

    return step


def score(model: Model) -> Callable[..., Any]:
    """The score of the data density, derived from `log_prob`, or else from `energy`.

    s(x) = d ln p(x|cond) / dx.

    Args:
        model: a model that defines `log_prob` or `energy`.

    Returns:
        `(params, x, cond=None) -> like x`.

    Raises:
        ValueError: if the model defines neither; when called, if `x` is not of a floating type, since a probability of
            integers has no gradient.
    """
    if model.log_prob is not None:
        log_density = model.log_prob
    elif model.energy is not None:
        energy = model.energy
        log_density = lambda params, x, cond=None: -energy(params, x, cond)  # noqa: E731
    else:
        raise ValueError("score needs a model with log_prob or energy, and both are None")

    def derived(params: Params, x: Data, cond: Cond = None) -> Data:
        if not jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating):
            raise ValueError(f"score is a gradient with respect to real data, got x of type {jnp.asarray(x).dtype}")
        return jax.grad(lambda y: log_density(params, y, cond).sum())(x)

    return derived


def importance_bound(model: Model, num_samples: int) -> Callable[..., PerExample]:
    """The importance-weighted bound, which rises with the number of samples towards ln p(x|cond).

    L_k(x) = ln (1/k) sum_{i=1..k} w_i, with w_i from `model.log_weight`; memory does not grow with k.

    Args:
        model: a model that defines `log_weight`.
        num_samples: k >= 1.

    Returns:
        `(params, key, x, cond=None) -> [n]`, in nats.

    Raises:
        ValueError: if the model has no `log_weight`, or `num_samples < 1`.

    Source: Importance Weighted Autoencoders, https://arxiv.org/abs/1509.00519.
    """
    if model.log_weight is None:
        raise ValueError("importance_bound needs a model with log_weight, and it is None")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    log_weight = model.log_weight

    def bound(params: Params, key: PRNGKey, x: Data, cond: Cond = None) -> PerExample:
        def add(total: PerExample, key: PRNGKey) -> tuple[PerExample, None]:
            return jnp.logaddexp(total, log_weight(params, key, x, cond)), None

        total, _ = jax.lax.scan(add, jnp.full(x.shape[0], -jnp.inf), jax.random.split(key, num_samples))
        return total - jnp.log(num_samples)

    return bound


def bits_per_dim(log_prob: PerExample, num_dims: int) -> PerExample:
    """Converts nats for an example into bits per dimension: -log_prob / (num_dims ln 2)."""
    return -log_prob / (num_dims * jnp.log(2.0))
