"""Another library in a process of its own, whose work is started like that of JAX: now, to be waited for later."""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import UserError

__all__ = ["KEEP_MEMORY", "Peer", "check_positive", "named", "num_threads", "peer"]

KEEP_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=-1",
    "MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1",
}
"""What `devices.keep_memory` sets here, for the peer: both keep freed memory, by whichever allocator both have."""

SEPARATORS = {"GLIBC_TUNABLES": ":", "MALLOC_CONF": ","}


class Peer(NamedTuple):
    """A library that waits for work.

    Attributes:
        params: number of parameters, or such numbers by name, as it says itself.
        versions: of its libraries, by name.
        work: kind to what starts one unit of it; what that returns is ready when the work is done.
    """

    params: Any
    versions: dict[str, str]
    work: dict[str, Callable[[], Any]]


class _Pending:
    """Work that was started, in the form in which `jax.block_until_ready` waits for it."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.block_until_ready = wait


@contextlib.contextmanager
def peer(python: str, module: str, sizes: dict[str, Any], *, kinds: Iterable[str], needs: str) -> Iterator[Peer]:
    """Starts a peer and ends it.

    Args:
        python: the interpreter of its environment.
        module: the one beside this that serves, see `serving`.
        sizes: what it is told on its command line.
        kinds: the work it knows.
        needs: what must be installed there.

    Raises:
        UserError: if it cannot be started, or stops.
    """
    command = [python, "-m", f"benchmarks.{module}", json.dumps(sizes)]
    environment = os.environ | _keeping(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[1])}
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    except OSError as error:
        raise UserError(f"the peer {python} cannot be started: {error.strerror}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    told, answers = process.stdin, process.stdout

    def tell(line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the answer that does not come says it
            told.write(line + "\n")
            told.flush()

    def wait() -> None:
        tell("wait")
        if not answers.readline():
            raise UserError(f"the peer {python} stopped: see its own message above")

    def start(kind: str) -> _Pending:
        tell(kind)
        return _Pending(wait)

    try:
        described = answers.readline()
        if not described:
            raise UserError(f"the peer {python} has no {needs}, or stopped: see its own message above")
        works: dict[str, Callable[[], Any]] = {kind: lambda kind=kind: start(kind) for kind in kinds}  # type: ignore[misc]
        yield Peer(**json.loads(described), work=works)
    finally:
        with contextlib.suppress(BrokenPipeError):
            told.close()
        process.wait()


def _keeping(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of `KEEP_MEMORY`, behind those that are there."""
    return {
        name: SEPARATORS[name].join(filter(None, [environment.get(name), setting]))
        for name, setting in KEEP_MEMORY.items()
    }


def num_threads() -> int:
    """The cores that this process may use; each library gets as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_positive(args: Any, *names: str) -> None:
    """Checks flags.

    Raises:
        UserError: if one is not above 0.
    """
    for name in names:
        if getattr(args, name) <= 0:
            raise UserError(f"--{name} must be above 0, got {getattr(args, name)}")


def named(flag: str, text: str, known: Iterable[str]) -> list[str]:
    """The names in a text, with commas between.

    Raises:
        UserError: if one is not known.
    """
    names, known = text.split(","), list(known)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--{flag} must be of {', '.join(known)}, got {unknown[0]!r}")
    return names
