"""What configs ask of data sets and flags before they build: each refusal is one clear line."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp

from experiments.config import Config
from experiments.data import Dataset
from experiments.errors import UserError

__all__ = [
    "dtype",
    "image_shape",
    "integer_shape",
    "legal",
    "num_classes",
    "num_dims",
    "numbers",
    "one_of",
    "positive",
    "unconditional",
]

T = TypeVar("T")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def image_shape(dataset: Dataset, what: str) -> tuple[int, int, int]:
    """Shape `(height, width, channels)` of the images of a data set.

    Args:
        dataset: the data set.
        what: the model that needs images, for the message.

    Returns:
        The shape of one image.

    Raises:
        UserError: if the data are not images of integer levels.
    """
    shape = dataset.train.x.shape[1:]
    if len(shape) != 3 or not dataset.num_levels:
        raise UserError(f"{what} is of images of integer levels, and {dataset.name} has events of shape {shape}")
    return shape


def integer_shape(dataset: Dataset, what: str) -> tuple[int, ...]:
    """Shape of one example of a data set of integers.

    Args:
        dataset: the data set.
        what: the model that needs integers, for the message.

    Raises:
        UserError: if the data are reals.
    """
    if not dataset.num_levels:
        raise UserError(f"{what} is of integer levels, and {dataset.name} is of reals")
    return dataset.train.x.shape[1:]


def num_dims(dataset: Dataset, what: str, *, at_least: int = 1) -> int:
    """Number of dimensions of a data set of real vectors.

    Args:
        dataset: the data set.
        what: the model that needs vectors, for the message.
        at_least: the fewest dimensions that it takes.

    Raises:
        UserError: if the data are not real vectors of so many dimensions.
    """
    shape = dataset.train.x.shape[1:]
    if len(shape) != 1 or dataset.num_levels or shape[0] < at_least:
        fewest = f" of at least {at_least} dimensions" if at_least > 1 else ""
        raise UserError(f"{what} is of real vectors{fewest}, and {dataset.name} has events of shape {shape}")
    return shape[0]


def num_classes(config: Config, dataset: Dataset) -> int:
    """Number of labels that a network is conditioned on; 0 where the config does not ask for any.

    Raises:
        UserError: if it asks and the data set has no labels.
    """
    if not config.conditional:
        return 0
    if not dataset.num_classes:
        raise UserError(f"{dataset.name} has no labels to condition on: pass --conditional False")
    return dataset.num_classes


def unconditional(config: Config, what: str) -> None:
    """Refuses labels for a model that cannot be conditioned on them.

    Raises:
        UserError: if the config asks to condition on labels.
    """
    if config.conditional:
        raise UserError(f"{what} cannot be conditioned on labels: pass --conditional False")


def one_of(config: Any, field: str, known: Mapping[str, T]) -> T:
    """What a field of a config names.

    Raises:
        UserError: if it names nothing known.
    """
    return known[legal(config, field, lambda name: name in known, f"one of {', '.join(known)}")]


def legal(config: Any, field: str, fits: Callable[[Any], bool], expected: str) -> Any:
    """The value of a field of a config.

    Args:
        config: has the field.
        field: its name.
        fits: whether the value will do.
        expected: what will do, for the message.

    Raises:
        UserError: if it will not do.
    """
    given = getattr(config, field)
    if not fits(given):
        raise UserError(f"--{field.replace('_', '-')} must be {expected}, got {given!r}")
    return given


def positive(config: Any, field: str) -> int:
    """The whole number of a field, at least 1.

    Raises:
        UserError: if it is less.
    """
    return legal(config, field, lambda number: number >= 1, "at least 1")


def numbers(
    config: Any, field: str, kind: Callable[[str], T], legal: Callable[[tuple[T, ...]], bool], expected: str
) -> tuple[T, ...]:
    """The numbers of a field, with commas between.

    Args:
        config: has the field, a text; an empty one has none.
        field: its name.
        kind: reads a number, `int` or `float`.
        legal: whether so many and such numbers will do.
        expected: what will do, for the message.

    Raises:
        UserError: if they cannot be read or will not do.
    """
    text = getattr(config, field)
    try:
        found = tuple(kind(part) for part in text.split(",") if text)
        fit = legal(found)
    except ValueError:
        fit = False
    if not fit:
        raise UserError(f"--{field.replace('_', '-')} must be {expected}, got {text!r}")
    return found


def dtype(config: Any) -> Any:
    """The type of a computation that the field `dtype` names.

    Raises:
        UserError: if it is neither float32 nor bfloat16.
    """
    return one_of(config, "dtype", DTYPES)
