"""Numbers with their protocol, from whatever fields a model defines.

Nothing here knows a family: a row is made for every field that is not `None`, and distances between samples and data
for every model. Those are in a stated feature space and stand beside the same number for training examples in place of
samples: a floor to compare with, though no strict bound where training and test rows differ in kind.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments import trained
from experiments.config import Evaluation
from experiments.data import Dataset, Split
from experiments.features import Space, principal_components
from experiments.trained import Trained
from jaxgen import core
from jaxgen.core import Model
from jaxgen.parallel import Placement

__all__ = [
    "MIN_EXAMPLES",
    "Row",
    "Setting",
    "likelihood_rows",
    "own_rows",
    "own_sample_rows",
    "reconstruction_rows",
    "sample_rows",
]

MIN_EXAMPLES = 20
"""Fewer give no distance with a standard error."""

_NUM_GROUPS, _NEIGHBOUR = 10, 3


class Row(NamedTuple):
    """A number with its protocol.

    Attributes:
        name: what is measured.
        value: the number.
        error: its standard error or half width.
        unit: "nats per image", "bits/dim", "" ...
        how: the part of the protocol that is this row's own.
        protocol: the whole protocol: `how`, the examples, the data set's own.
        better: "higher", "lower" or "".
        floor: the same number for training examples in place of samples, or `None`.
        floor_error: its standard error.
        shared: the part of the protocol that several rows share, "" if none.
    """

    name: str
    value: float
    error: float
    unit: str
    how: str
    protocol: str
    better: str = ""
    floor: float | None = None
    floor_error: float | None = None
    shared: str = ""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all rows of one evaluation share.

    Attributes:
        model: run and parameters.
        placement: how samples are drawn on the devices.
        examples: the examples that are evaluated; `cond` is `None` where the model takes no label.
        which: says which they are: "all 497 test examples".
        seed: seed of all noise.
        importance_samples: k of the importance-weighted bound.
        options: compiler options.
        space: where samples are compared with data; by default the principal components of the training data.
        split: the part of the data that the examples are from.
    """

    model: Trained
    placement: Placement
    examples: Split
    which: str
    seed: int
    importance_samples: int
    options: dict[str, str] | None = None
    space: Space | None = None
    split: str = "test"

    def protocol(self, how: str) -> str:
        """The whole protocol of a row."""
        return f"{how}; {self.which}; {self.model.run.dataset.protocol}"


def _event(setting: Setting) -> str:
    return "image" if setting.examples.x.ndim == 4 else "example"


def _given(examples: Split) -> str:
    return "label" if examples.cond is not None and examples.cond.ndim == 1 else "source"


def _bounds(model: Model, setting: Setting, exact: str, said: str) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Name, protocol and function of every likelihood field that is there."""
    k, given = setting.importance_samples, f", {said}" if said else ""
    if (log_prob := model.log_prob) is not None:
        how = ", ".join(part for part in (exact, said) if part)
        yield "log-likelihood", how, lambda params, key, x, cond: log_prob(params, x, cond)
    if model.log_weight is not None:
        how = f"lower bound, importance weighted, k = {k}{given}"
        yield "log-likelihood, importance-weighted bound", how, core.importance_bound(model, k)
    if model.elbo is not None:
        yield "log-likelihood, lower bound", f"lower bound, 1 draw per example{given}", model.elbo


def _padded(dataset: Dataset) -> bool:
    """Whether examples are of several lengths: their number of dimensions is not that of the array that holds them."""
    return dataset.buckets is not None or dataset.sounds is not None


def likelihood_rows(setting: Setting) -> Iterator[Row]:
    """Exact likelihoods and bounds, in nats and (integer data of one length) in bits per dimension."""
    experiment = setting.model.run.experiment
    models = [(experiment.model, "exact", experiment.protocol)]
    if experiment.likelihood is not None:
        models.append((experiment.likelihood, "", experiment.likelihood_protocol or "of the config's likelihood model"))
    for model, exact, said in models:
        for name, how, function in _bounds(model, setting, exact, said):
            how += f", given the {_given(setting.examples)}" if setting.examples.cond is not None else ""
            values = trained.over_batches(
                function, setting.model.params, setting.examples, seed=setting.seed, options=setting.options
            )
            yield from _in_both_units(setting, name, how, values)


def _in_both_units(setting: Setting, name: str, how: str, values: np.ndarray) -> Iterator[Row]:
    import jax.numpy as jnp

    from jaxgen.metrics.likelihood import mean_with_error

    protocol = setting.protocol(how)
    mean, error = map(float, mean_with_error(jnp.asarray(values)))
    yield Row(name, mean, error, f"nats per {_event(setting)}", how, protocol, "higher")
    dataset = setting.model.run.dataset
    if dataset.num_levels and not _padded(dataset):
        bits = core.bits_per_dim(jnp.asarray(values), int(np.prod(setting.examples.x.shape[1:])))
        mean, error = map(float, mean_with_error(bits))
        yield Row(name, mean, error, "bits/dim", how, protocol, "lower")


def reconstruction_rows(setting: Setting) -> Iterator[Row]:
    """Mean squared error of `decode(encode(x))`."""
    import jax.numpy as jnp

    from jaxgen.metrics.likelihood import mean_with_error

    encode, decode = setting.model.run.experiment.model.encode, setting.model.run.experiment.model.decode
    if encode is None or decode is None:
        return
    scale = _scale(setting.model)

    def squared_error(params: Any, key: Any, x: Any, cond: Any) -> Any:
        again = decode(params, encode(params, key, x, cond), cond)
        difference = (again.astype("float32") - x.astype("float32")) / scale
        return (difference**2).reshape(x.shape[0], -1).mean(-1)

    values = trained.over_batches(
        squared_error, setting.model.params, setting.examples, seed=setting.seed, options=setting.options
    )
    units = "pixels scaled to 0..1" if setting.model.run.dataset.num_levels else "in squared units of the data"
    how = f"mean squared error of decode(encode(x)), 1 draw of the latent, {units}"
    mean, error = map(float, mean_with_error(jnp.asarray(values)))
    yield Row("reconstruction error", mean, error, "per dimension", how, setting.protocol(how), "lower")


def own_rows(setting: Setting, name: str, evaluation: Evaluation) -> Iterator[Row]:
    """What only this experiment measures; its protocol is its own."""
    import jax

    dataset, key = setting.model.run.dataset, jax.random.key(setting.seed)
    value, error = evaluation.compute(setting.model.params, key, dataset, getattr(dataset, setting.split))
    protocol = f"{evaluation.protocol}; whole {setting.split} part; {dataset.protocol}"
    yield Row(name, float(value), float(error), evaluation.unit, evaluation.protocol, protocol, evaluation.better)


def own_sample_rows(setting: Setting) -> Iterator[Row]:
    """Of what only this experiment measures, what judges its samples."""
    for name, evaluation in setting.model.run.experiment.evaluations.items():
        if evaluation.of_samples:
            yield from own_rows(setting, name, evaluation)


def _scale(model: Trained) -> float:
    return float(max(model.run.dataset.num_levels - 1, 1))


def _median_distance(features: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    return float(np.median(pdist(features[:500])))


def _distances(bandwidth: float, num: int) -> dict[str, tuple[str, str, Callable[..., Any]]]:
    """Name to protocol, what is better, and `(data, samples) -> Estimate`."""
    from jaxgen.metrics import frechet, kernel, precision_recall, resampling

    size = num // _NUM_GROUPS
    blocks = f"unbiased, {_NUM_GROUPS} blocks of {size}"
    cubic, gaussian = kernel.polynomial_kernel(), kernel.gaussian_kernel(bandwidth=bandwidth)
    return {
        "Frechet distance": (
            f"Gaussian fits, jackknife over {_NUM_GROUPS} groups",
            "lower",
            lambda x, y: resampling.jackknife(frechet.frechet_distance, x, y, num_groups=_NUM_GROUPS),
        ),
        "kernel distance, cubic": (
            f"squared MMD, kernel (x.y/d + 1)^3, {blocks}",
            "lower",
            lambda x, y: kernel.block_squared_mmd(cubic, x, y, block_size=size),
        ),
        "kernel distance, Gaussian": (
            f"squared MMD, bandwidth {bandwidth:.4g} (median distance of training examples), {blocks}",
            "lower",
            lambda x, y: kernel.block_squared_mmd(gaussian, x, y, block_size=size),
        ),
        "precision": (
            f"balls out to nearest neighbour number {_NEIGHBOUR}",
            "higher",
            lambda x, y: precision_recall.precision_recall(x, y, k=_NEIGHBOUR).precision,
        ),
        "recall": (
            f"balls out to nearest neighbour number {_NEIGHBOUR}",
            "higher",
            lambda x, y: precision_recall.precision_recall(x, y, k=_NEIGHBOUR).recall,
        ),
    }


def sample_rows(setting: Setting) -> Iterator[Row]:
    """Distances between samples and data, for every model but those of texts, whose tokens are no coordinates.

    Conditional models are given the labels of the training examples that make the floor: with those of the examples
    they are compared with, classes would agree better than in two independent sets, and distances come out too small.
    """
    import jax

    run, num, conditional = setting.model.run, len(setting.examples.x), setting.examples.cond is not None
    if run.dataset.texts is not None:
        return
    rows = np.random.default_rng(setting.seed).permutation(len(run.dataset.train.x))[:num]
    labels = run.dataset.train.cond[rows] if conditional else None
    samples = trained.draw(
        setting.placement, run.experiment.model, setting.model.params, num, seed=setting.seed, labels=labels
    )
    space = setting.space or principal_components(run.dataset)
    data, fake, train = map(space.apply, (setting.examples.x, samples, run.dataset.train.x[rows]))
    shared = f"{num} samples{' given the labels of as many training examples' if conditional else ''}; {space.how}"
    for name, (how, better, measure) in _distances(_median_distance(train), num).items():
        compiled = jax.jit(measure, compiler_options=setting.options)
        (value, error), (floor, floor_error) = compiled(data, fake), compiled(data, train)
        estimates = {"value": value, "error": error, "floor": floor, "floor_error": floor_error}
        yield Row(
            name=f"{space.name} {name}",
            unit="",
            how=how,
            protocol=setting.protocol(f"{how}; {shared}"),
            better=better,
            shared=shared,
            **{field: float(number) for field, number in estimates.items()},
        )
