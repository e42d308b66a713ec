"""A trained run as the teacher of another: its model, and its parameters for the new run's first state."""

from collections.abc import Callable

from experiments import runs, trained
from experiments.errors import UserError
from jaxgen.core import TrainState
from jaxgen.teaching import starting_from, with_teacher
from jaxgen.types import Params

__all__ = ["check", "distilled", "started", "taught"]


def check(directory: str, config_names: tuple[str, ...], fields: dict[str, object], *, flag: str = "teacher") -> None:
    """Checks, before anything is built, that a run can teach.

    Args:
        directory: the teacher's run directory.
        config_names: configs that will do, without their data: `diffusion`, say.
        fields: values that its config must have, those of the network.
        flag: the one that named it, for messages.

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


def taught(directory: str) -> Callable[[TrainState], TrainState]:
    """`state -> state` that takes a run's averaged parameters as the teacher's.

    It raises a `UserError` if they are of other shapes than the state's.
    """
    return _with_params(directory, with_teacher)


def distilled(directory: str) -> Callable[[TrainState], TrainState]:
    """`state -> state` that takes a run's averaged parameters as the teacher's and as its own first ones.

    It raises a `UserError` if they are of other shapes than the state's.
    """
    return _with_params(directory, lambda state, params: starting_from(with_teacher(state, params), params))


def started(directory: str) -> Callable[[TrainState], TrainState]:
    """`state -> state` that takes a run's averaged parameters as its own first ones.

    It raises a `UserError` if they are of other shapes than the state's.
    """
    return _with_params(directory, starting_from)


def _with_params(directory: str, put: Callable[[TrainState, Params], TrainState]) -> Callable[[TrainState], TrainState]:
    def prepare(state: TrainState) -> TrainState:
        params = trained.open_trained(directory).params
        try:
            return put(state, params)
        except ValueError as error:
            raise UserError(f"the run {directory} cannot teach this one: {error}") from error

    return prepare
