"""What a config is: a frozen dataclass of flags, and a function that builds the experiment from it.

A config file in `experiments/configs/` is called MODEL_DATA and holds

* a docstring: the command, the expected minutes on which hardware, the expected and the published number;
* `Config`, a frozen dataclass derived from `experiments.config.Config`, each field with a string below it that says
  what it means (this is the help on the command line);
* `build(config, dataset) -> Experiment`.

All models are models of the RAW data that `experiments.data` delivers (for images: `uint8 [n, height, width,
channels]` with values 0 .. num_levels - 1): reshaping, scaling and dequantisation are `Model -> Model` transforms, so
that samples of every model are images again and likelihoods are in one unit.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from jaxgen.core import Model, TrainState

__all__ = ["Config", "Experiment"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Fields that every config has."""

    data: str = "digits"
    """Data set; `--help` lists them."""
    steps: int = 1000
    """Number of training steps in all (a resumed run goes on to this number)."""
    batch_size: int = 128
    """Examples per step, over all devices."""
    learning_rate: float = 1e-3
    """Step size of the optimiser."""
    ema_decay: float = 0.0
    """Decay of the moving average of the parameters that is sampled and evaluated; 0 turns it off."""
    conditional: bool = False
    """Condition on the labels."""
    seed: int = 0
    """Seed of the parameters, the batches and the noise."""
    log_every: int = 50
    """Steps between two lines of metrics."""
    checkpoint_every: int = 500
    """Steps between two checkpoints (each with the loss on the validation part)."""
    keep: int = 2
    """Newest checkpoints kept, besides the best."""


class Experiment(NamedTuple):
    """What `train`, `sample` and `evaluate` need of a config.

    Attributes:
        model: the model that is trained, a model of raw data.
        tx: the optimiser.
        evaluations: names to `Evaluation`s that only this family has (an AIS interval, say), besides those derived
            from the model's fields.
        likelihood: the model whose likelihood fields are evaluated where it is not `model` itself (the probability
            flow of a diffusion model, say).
        protocol: what stands in the protocol of the model's own likelihoods (the noise of dequantisation, say).
        likelihood_protocol: what stands in the protocol of `likelihood`'s numbers (the ODE solver and its tolerance).
        sample_from: `(params, key, x) -> x`, samples of chains that start at the data `x`, where a model has chains.
        complete: `(params, key, given [n, k, ...], cond) -> x [n, ...]`, draws of whole examples whose first k rows, or
            elements of a vector, are given, where a model can go on from them.
        prepare: `state -> state`, on the host before the first step, where a run begins with the parameters of another
            (a teacher's, say).
    """

    model: Model
    tx: optax.GradientTransformation
    evaluations: dict[str, "Evaluation"] = {}  # noqa: RUF012
    protocol: str = ""
    likelihood: Model | None = None
    likelihood_protocol: str = ""
    sample_from: Callable[..., Any] | None = None
    complete: Callable[..., Any] | None = None
    prepare: Callable[[TrainState], TrainState] | None = None


class Evaluation(NamedTuple):
    """A number with its protocol.

    Attributes:
        compute: `(params, key, dataset, split) -> (value, uncertainty)`: the number (of a whole part of the data, where
            it is of data) and its standard error or half width.
        unit: "nats", "bits/dim", "" ...
        protocol: one line: exact or bound, how many samples, which split, which binarisation or dequantisation.
        better: "higher" or "lower" where runs may be ranked by this number, else "".
        of_samples: whether it judges samples, and so depends on how they are drawn.
    """

    compute: Callable[..., tuple[float, float]]
    unit: str
    protocol: str
    better: str = ""
    of_samples: bool = False
