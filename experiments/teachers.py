"""A trained run as the teacher of another: its model, and its parameters for the new run's first state."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments import runs, trained
from experiments.errors import UserError
from jaxgen.core import TrainState
from jaxgen.teaching import starting_from, with_teacher
from jaxgen.types import Params

__all__ = ["check", "distilled", "named", "started", "taught"]


def named(config: Any) -> tuple[str, str]:
    """The run that a config names as its teacher or to start from: its directory and the flag; empty for none.

    Raises:
        UserError: if both are named.
    """
    if config.teacher and config.start:
        raise UserError("--teacher and --start exclude each other: a distilled model starts from its teacher")
    return config.teacher or config.start, "teacher" if config.teacher else "start"


def check(
    directory: str,
    config_names: tuple[str, ...],
    fields: Mapping[str, object],
    *,
    needed: Mapping[str, object] | None = None,
    flag: str = "teacher",
) -> Any:
    """Checks, before anything is built, that a run can teach.

    Args:
        directory: the teacher's run directory.
        config_names: configs that will do, without their data: `diffusion`, say.
        fields: values that its config must have, those of the network, which flags of the new run change.
        needed: further values that it must have, whatever those flags are.
        flag: the one that named it, for messages.

    Returns:
        The config of that run.

    Raises:
        UserError: if there is no such run, or it is of another config, or has another value.
    """
    run = runs.open_run(directory)
    if run.config_name.rsplit("_", 1)[0] not in config_names:
        expected = " or ".join(config_names)
        raise UserError(f"--{flag} {directory} is a run of {run.config_name}: expected one of {expected}")
    for name, value in fields.items():
        if (found := getattr(run.config, name)) != value:
            raise UserError(f"--{flag} {directory} has {name}={found!r}: give this run the same, it has {value!r}")
    for name, value in (needed or {}).items():
        if (found := getattr(run.config, name)) != value:
            raise UserError(f"--{flag} {directory} has {name}={found!r}: expected a run with {name}={value!r}")
    return run.config


def taught(directory: str) -> Callable[[TrainState], TrainState]:
    """`state -> state` that takes a run's averaged parameters as the teacher's.

    It raises a `UserError` if they are of other shapes than the state's.
    """
    return _with_params(directory, with_teacher)


def distilled(directory: str, *, at: str = "") -> Callable[[TrainState], TrainState]:
    """`state -> state` that takes a run's averaged parameters as the teacher's and as its own first ones.

    It raises a `UserError` if they are of other shapes than the state's.

    Args:
        directory: the run directory.
        at: which of its own they replace, by name; "" for all.
    """
    start = _starting(at)
    return _with_params(directory, lambda state, params: start(with_teacher(state, params), params))


def started(directory: str, *, at: str = "") -> Callable[[TrainState], TrainState]:
    """`state -> state` that takes a run's averaged parameters as its own first ones.

    It raises a `UserError` if they are of other shapes than the state's.

    Args:
        directory: the run directory.
        at: which of its own they replace, by name; "" for all.
    """
    return _with_params(directory, _starting(at))


def _starting(at: str) -> Callable[[TrainState, Any], TrainState]:
    def start(state: TrainState, params: Any) -> TrainState:
        own: Any = state.params
        return starting_from(state, {**own, at: params} if at else params)

    return start


def _with_params(directory: str, put: Callable[[TrainState, Params], TrainState]) -> Callable[[TrainState], TrainState]:
    def prepare(state: TrainState) -> TrainState:
        params = trained.open_trained(directory).params
        try:
            return put(state, params)
        except ValueError as error:
            raise UserError(f"the run {directory} cannot teach this one: {error}") from error

    return prepare
