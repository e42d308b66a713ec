"""Which checkpoints a run directory has, and whether each is what was written.

    checkpoints/STEP.part/     what is being written, and may be removed again
    checkpoints/STEP/          what was written
    checkpoints/STEP.sha256    SHA-256 of every file in STEP/, as `sha256sum` prints it
    checkpoints/damaged/       what was found damaged and moved out of the way

A checkpoint exists once its `.sha256` is there, which is written last (in one rename) and removed first: whatever a
killed process leaves half written or half removed is no checkpoint. It is whole if computing that file again gives the
same text, so a change to any byte of any file is seen, in the `.sha256` too.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from experiments.errors import UserError
from experiments.runs import write_text

__all__ = ["Damaged", "clean", "part", "remove", "root", "seal", "steps", "verify"]


class Damaged(Exception):
    """A checkpoint is not what was written: one line that says where."""


def root(directory: str | Path) -> Path:
    """Where a run directory keeps its checkpoints."""
    return Path(directory).absolute() / "checkpoints"


def part(directory: str | Path, step: int) -> Path:
    """Where the files of a step are written before they are sealed."""
    return root(directory) / f"{step}.part"


def seal(directory: str | Path, step: int) -> None:
    """Gives a step's files their name, and then their digests; from then on they are a checkpoint."""
    digests = _file_digests(part(directory, step), str(step))
    os.replace(part(directory, step), root(directory) / str(step))
    write_text(_digest_path(directory, step), digests)


def steps(directory: str | Path) -> list[int]:
    """Steps that have a checkpoint (whole or damaged), ascending."""
    found = root(directory).glob("*.sha256")
    return sorted(int(path.stem) for path in found if path.stem.isdigit())


def clean(directory: str | Path) -> None:
    """Before training: moves damaged checkpoints to damaged/ and removes what a killed process left unfinished.

    Raises:
        UserError: if there are checkpoints and every one is damaged; nothing is moved then.
    """
    found = steps(directory)
    reasons = {step: reason for step in found if (reason := _damage(directory, step))}
    if found and len(reasons) == len(found):
        raise UserError(f"{reasons[found[-1]]}, and there is none before it: remove {root(directory)} to begin again")
    for path in root(directory).glob("[0-9]*"):
        if path.name.isdigit() and int(path.name) not in found:
            reasons[int(path.name)] = f"checkpoint {path.name} in {directory} has no .sha256"
        elif path.suffix in (".part", ".tmp"):
            _delete(path)
    for step, reason in reasons.items():
        print(f"warning: {reason}; moved to checkpoints/damaged, using the one before", file=sys.stderr)
        _set_aside(directory, step)


def verify(directory: str | Path, step: int) -> None:
    """Compares every file of a checkpoint with its digest.

    Raises:
        Damaged: if one differs, is missing or is new.
    """
    if reason := _damage(directory, step):
        raise Damaged(reason)


def _damage(directory: str | Path, step: int) -> str | None:
    name = f"checkpoint {step} in {directory} is damaged"
    try:
        recorded = _digest_path(directory, step).read_text(encoding="utf-8")
        computed = _file_digests(root(directory) / str(step), str(step))
    except (OSError, ValueError) as error:
        return f"{name}: {error}"
    changed = set(recorded.split("\n")) ^ set(computed.split("\n"))
    files = sorted({line.partition("  ")[2] for line in changed} - {""})
    return f"{name}: {files[0] if files else 'its .sha256'} has changed" if recorded != computed else None


def _digest_path(directory: str | Path, step: int) -> Path:
    return root(directory) / f"{step}.sha256"


def _file_digests(path: Path, name: str) -> str:
    """What `sha256sum` prints for every file in a directory of that name, sorted."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return "".join(f"{_sha256(file)}  {name}/{file.relative_to(path).as_posix()}\n" for file in files)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(directory: str | Path, step: int) -> None:
    """Removes a checkpoint, its digest first, so that it is never half a checkpoint."""
    _delete(_digest_path(directory, step))
    _delete(part(directory, step))
    if (root(directory) / str(step)).exists():
        os.replace(root(directory) / str(step), part(directory, step))
        _delete(part(directory, step))


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _set_aside(directory: str | Path, step: int) -> None:
    """Moves a damaged checkpoint to damaged/, its digest first."""
    aside = root(directory) / "damaged"
    aside.mkdir(exist_ok=True)
    for path in (_digest_path(directory, step), root(directory) / str(step)):
        _delete(aside / path.name)
        if path.exists():
            os.replace(path, aside / path.name)
