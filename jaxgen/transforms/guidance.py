r"""Guidance: the score of a model is bent towards its condition, and samples follow it.

(1)  classifier-free:  s = s(x_t | null) + w (s(x_t | cond) - s(x_t | null))
(2)  by a classifier:  s = s(x_t) + w grad ln p(cond | x_t)

At a time t both are the score of p_t(x) p_t(cond | x)^w up to a constant, by Bayes' rule; w = 1 is the conditional
density and w = 0 the unconditional one. For other w the scores of different times do not belong to one noise path, so
that samples are not exactly those of the product, and no likelihood of the wrapped model holds any longer.

Sources: Classifier-Free Diffusion Guidance, https://arxiv.org/abs/2207.12598 (1); Diffusion Models Beat GANs on Image
Synthesis, https://arxiv.org/abs/2105.05233, section 4 (2); Applying Guidance in a Limited Interval Improves Sample and
Distribution Quality in Diffusion Models, https://arxiv.org/abs/2404.07724.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from jaxgen import paths
from jaxgen.core import Model
from jaxgen.nets.reading import check_read
from jaxgen.paths import Path, Time
from jaxgen.transforms.resample import resample
from jaxgen.types import Batch, Carry, Cond, Data, Params, PRNGKey, Scalar

__all__ = ["classifier_free_guidance", "classifier_guidance"]


def classifier_free_guidance(
    model: Model, path: Path, *, null: int, scale: Scalar, interval: tuple[Scalar, Scalar] | None = None
) -> Model:
    """Guidance (1) by a model that was trained with `drop_condition`.

    The scale and the interval may be traced: a function that builds the guided model inside `jax.jit` and takes them
    as arguments is compiled once for all their values.

    Args:
        model: a conditional model with a `score` that knows the null label.
        path: the noise path of that score.
        null: the null label.
        scale: w; 1 gives the conditional score exactly, 0 the unconditional one.
        interval: lowest and highest noise level sigma / alpha at which to guide; the score is the conditional one
            outside. Guides everywhere by default.

    Returns:
        A `Model` with the guided `score`, whose samples, `encode` and `decode` are those of `resample` with its
        defaults (wrap it in `resample` again for another sampler). A score is one evaluation of the wrapped one on a
        batch of twice the size. Likelihoods are `None`.

    Raises:
        ValueError: if the model has no score; from `init` and when called, if there are no labels or the score does not
            read them, as far as `nets.reading` can tell.

    Source: Classifier-Free Diffusion Guidance, https://arxiv.org/abs/2207.12598.
    """
    score = _score_of(model, "classifier_free_guidance")

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        params, _ = jax.eval_shape(model.init, key, batch)
        own = lambda params, x, cond: score(params, x, jnp.asarray(path.t_max), cond)  # noqa: E731
        check_read("classifier_free_guidance", own, params, *batch)
        return model.init(key, batch)

    def guided(params: Params, x: Data, t: Time, cond: Cond = None) -> Data:
        _check_labels(cond, "classifier_free_guidance")
        times = jnp.concatenate([t, t]) if jnp.ndim(t) else t
        labels = jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.full_like(leaf, null)]), cond)
        own = lambda labels: score(params, jnp.concatenate([x, x]), times, labels)  # noqa: E731
        conditional, unconditional = jnp.split(_read_by(own, labels, "classifier_free_guidance"), 2)
        w = _weight(path, t, x, scale, interval, outside=1.0)
        return w * conditional + (1 - w) * unconditional

    return _guided(model._replace(init=init), path, guided)


def classifier_guidance(
    model: Model,
    path: Path,
    log_prob_of_label: Callable[[Any, Any, Any], Any],
    *,
    scale: Scalar,
    interval: tuple[Scalar, Scalar] | None = None,
) -> Model:
    """Guidance (2) by a classifier of noisy data; scale and interval may be traced, and the classifier's weights too.

    Args:
        model: a model with a `score`; it is handed the labels, too, and may ignore them.
        path: the noise path of that score.
        log_prob_of_label: `(x_t, t, cond) -> ln p(cond | x_t) [n]`, in nats, differentiable in x_t; each example on
            its own. `t` is one time or `[n]`.
        scale: w; with an exact classifier, 1 gives the conditional score of an unconditional model.
        interval: lowest and highest noise level sigma / alpha at which to guide; the score is the model's own outside.
            Guides everywhere by default.

    Returns:
        A `Model` with the guided `score`, whose samples, `encode` and `decode` are those of `resample` with its
        defaults (wrap it in `resample` again for another sampler). Likelihoods are `None`.

    Raises:
        ValueError: if the model has no score; when called, if there are no labels.

    Source: Diffusion Models Beat GANs on Image Synthesis, https://arxiv.org/abs/2105.05233, section 4.
    """
    score = _score_of(model, "classifier_guidance")

    def guided(params: Params, x: Data, t: Time, cond: Cond = None) -> Data:
        _check_labels(cond, "classifier_guidance")
        slope = jax.grad(lambda x: log_prob_of_label(x, t, cond).sum())(x)
        return score(params, x, t, cond) + _weight(path, t, x, scale, interval, outside=0.0) * slope

    return _guided(model, path, guided)


def _score_of(model: Model, name: str) -> Callable[..., Any]:
    if model.score is None:
        raise ValueError(f"{name} needs a model with a score, and it is None")
    return model.score


def _check_labels(cond: Cond, name: str) -> None:
    if cond is None:
        raise ValueError(f"{name} needs a label for every example, got cond=None")


def _read_by(score: Callable[[Any], Any], labels: Cond, name: str) -> Data:
    """The score, unless it does not read its labels; it is called once."""
    run, flat = jaxpr_as_fun(jax.make_jaxpr(score)(labels)), jax.tree.leaves(labels)
    check_read(name, lambda flat: run(*flat), flat)
    return run(*flat)[0]


def _weight(
    path: Path, t: Time, x: Data, scale: Scalar, interval: tuple[Scalar, Scalar] | None, *, outside: float
) -> Any:
    """The scale inside the interval and another one outside, shaped to multiply x."""
    if interval is None:
        return jnp.asarray(scale, x.dtype)
    alpha, sigma = paths.scales(path, t, x)
    inside = (interval[0] * alpha <= sigma) & (sigma <= interval[1] * alpha)
    return jnp.where(inside, jnp.asarray(scale, x.dtype), outside)


def _guided(model: Model, path: Path, score: Callable[..., Any]) -> Model:
    """The model with another score, and what follows from it."""
    changed = model._replace(score=score, log_prob=None, log_weight=None, elbo=None, energy=None)
    return resample(changed, path)
