"""The run directory: what a run was told, where it ran, what it measured.

config.json       name of the config, and its fields
environment.json  versions, devices, flags; what was different when it was resumed
metrics.jsonl     one JSON object a line: step, loss, metrics, steps_per_second, seconds, time
tensorboard/      the same for TensorBoard
checkpoints/      see `experiments.checkpoints`
lock              held by the process that trains here
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import configs
from experiments.config import Config, Experiment
from experiments.errors import UserError

__all__ = [
    "Run",
    "build",
    "check",
    "claim",
    "locked",
    "open_run",
    "read_json",
    "record_environment",
    "sampling_fields",
    "write_json",
    "write_text",
]

FREE_FIELDS = ("steps", "log_every", "checkpoint_every", "keep")
"""Fields that may change when a run goes on. Of these, parameters depend on `steps` alone, and only where the
schedule of the optimiser does: another number then stretches what is left of it."""


class Run(NamedTuple):
    """A run and what its config builds.

    Attributes:
        directory: the run directory.
        config_name: MODEL_DATA.
        config: the config's dataclass.
        experiment: model, optimiser and evaluations.
        dataset: the data.
    """

    directory: Path
    config_name: str
    config: Config
    experiment: Experiment
    dataset: Any


def build(directory: str | Path, config_name: str, config: Config) -> Run:
    """Loads the data and builds the experiment of a config.

    Raises:
        UserError: if the data is missing or the config cannot be built.
    """
    from experiments import data

    dataset = data.load(config.data)
    try:
        experiment = configs.load(config_name).build(config, dataset)
    except ValueError as error:
        raise UserError(f"config {config_name} cannot be built: {error}") from error
    return Run(Path(directory), config_name, config, experiment, dataset)


def open_run(directory: str | Path, changes: Sequence[str] = ()) -> Run:
    """Opens a run that has been trained.

    Args:
        directory: the run directory.
        changes: `FIELD=VALUE` for fields that only sampling and evaluation read (`SAMPLING_FIELDS` of the config).

    Returns:
        The run, its data loaded and its experiment built.

    Raises:
        UserError: if this is no run directory, its config no longer exists or has other fields, or a change is not
            one that a trained run can take.
    """
    directory = Path(directory)
    name, fields = _read_config(directory)
    cls = configs.load(name).Config
    fields.update(_changed(name, cls, changes))
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(fields) - known):
        raise UserError(f"{directory / 'config.json'} has a field {unknown[0]!r} that config {name} does not have")
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    return build(directory, name, cls(**{name: _like(value, defaults[name]) for name, value in fields.items()}))


def sampling_fields(config_name: str) -> tuple[str, ...]:
    """Fields of a config that only sampling and evaluation read, so that a trained run can take other values."""
    return getattr(configs.load(config_name), "SAMPLING_FIELDS", ())


def _changed(config_name: str, cls: type[Config], changes: Sequence[str]) -> dict[str, Any]:
    """Parses `FIELD=VALUE`, each by the type of the field's default."""
    free, found = sampling_fields(config_name), {}
    for change in changes:
        name, equals, text = change.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not equals or name not in free:
            known = f"one of {', '.join(free)}" if free else f"nothing: {config_name} has no such field"
            raise UserError(f"--set takes FIELD=VALUE where FIELD is {known}; got {change!r}")
        found[name] = _parsed_like(name, text, {field.name: field.default for field in dataclasses.fields(cls)}[name])
    return found


def _parsed_like(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise UserError(f"--set {name} must be True or False, got {text!r}")
        return text.lower() == "true"
    try:
        return type(default)(text)
    except ValueError:
        raise UserError(f"--set {name} must be of type {type(default).__name__}, got {text!r}") from None


def check(directory: str | Path, config_name: str, config: Config) -> None:
    """Checks that a directory is free, or belongs to this config; touches nothing.

    A field that the config did not have when the run began may have its default.

    Raises:
        UserError: if it belongs to another config (names the field and both values), or cannot be a run directory.
    """
    directory = Path(directory)
    if (directory / "config.json").exists():
        _check_same(directory, config_name, config)
    elif directory.exists() and not directory.is_dir():
        raise UserError(f"--workdir {directory} is a file, not a directory")
    elif (directory / "checkpoints").exists():
        raise UserError(f"{directory} has checkpoints but no config.json: give another --workdir")


def claim(directory: str | Path, config_name: str, config: Config) -> None:
    """Makes the run directory, if `check` lets it, and writes config.json.

    A warning names what the config did not have when the run began.

    Args:
        directory: the run directory.
        config_name: MODEL_DATA.
        config: the config's dataclass.

    Raises:
        UserError: if it cannot be written, or belongs to another config.
    """
    check(directory, config_name, config)
    directory, fields = Path(directory), dataclasses.asdict(config)
    if (directory / "config.json").exists() and (added := fields.keys() - _read_config(directory)[1].keys()):
        said = ", ".join(f"{field}={fields[field]!r}" for field in sorted(added))
        print(f"warning: {directory} began without fields that {config_name} has now: {said}", file=sys.stderr)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "config.json", {"config": config_name, "fields": fields})
    except OSError as error:
        raise UserError(f"cannot write to --workdir {directory}: {error.strerror}") from error


@contextlib.contextmanager
def locked(directory: str | Path) -> Iterator[None]:
    """Keeps a second process from training in the same directory; the lock ends with the process, however it ends.

    Raises:
        UserError: if another process trains there.
    """
    import fcntl

    with open(Path(directory) / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training in {directory}") from None
        yield


def record_environment(directory: str | Path, step: int, environment: dict[str, Any]) -> None:
    """Writes environment.json at the start of a run; names what is different when it goes on, and adds that to it.

    Args:
        directory: the run directory.
        step: the step at which the run starts or goes on.
        environment: what the bits of the parameters depend on besides config and code.
    """
    path = Path(directory) / "environment.json"
    if not step or not path.exists():
        return write_json(path, environment)
    recorded = read_json(path)
    old, new = _flat(recorded), _flat(environment)
    changes = {name: [old.get(name), value] for name, value in new.items() if old.get(name) != value}
    if changes:
        text = ", ".join(f"{name} ({before!r}, now {now!r})" for name, (before, now) in changes.items())
        print(f"warning: not the environment this run began in, so not its bits: {text}", file=sys.stderr)
        resumed = [*recorded.get("resumed", []), {"step": step, "changes": changes}]
        write_json(path, {**recorded, "resumed": resumed})
    return None


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with names like `versions.jax`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _check_same(directory: Path, config_name: str, config: Config) -> None:
    name, old = _read_config(directory)
    if name != config_name:
        raise UserError(f"{directory} belongs to config {name}, not {config_name}: give another --workdir")
    new = json.loads(json.dumps(dataclasses.asdict(config)))
    free = {*FREE_FIELDS, *sampling_fields(config_name)}
    defaults = json.loads(json.dumps({field.name: field.default for field in dataclasses.fields(config)}))
    added = {field for field in new if field not in old and new[field] == defaults[field]}
    for field in sorted(old.keys() | new.keys() - added):
        if field not in free and old.get(field) != new.get(field):
            values = f"{field}={old.get(field)!r}, not {field}={new.get(field)!r}"
            raise UserError(f"{directory} was trained with {values}: give another --workdir, or that value")


def _read_config(directory: Path) -> tuple[str, dict[str, Any]]:
    try:
        record = read_json(directory / "config.json")
        return record["config"], dict(record["fields"])
    except FileNotFoundError:
        raise UserError(f"{directory} is not a run directory: it has no config.json") from None
    except NotADirectoryError:
        raise UserError(f"{directory} is a file, not a run directory") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory / 'config.json'} cannot be read: {error}") from error


def _like(value: Any, default: Any) -> Any:
    """JSON has no tuples."""
    return tuple(value) if isinstance(default, tuple) else value


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file so that a reader (or a crash) meets the old one or the whole new one."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
