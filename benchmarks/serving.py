"""The peer's side of the benchmarks against other libraries: work that is started by lines on stdin.

It runs in an environment of its own and imports nothing of jaxgen. After one line of JSON that describes the peer, each
line on stdin names a kind of work and starts it. The line `wait` is answered by `done` once all that was started is
finished, so that many calls cost one answer.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

Works = dict[str, Callable[[], Any]]


def sizes() -> dict[str, Any]:
    """What the other side has said on the command line."""
    return json.loads(sys.argv[1])


def serve(works: Works, params: Any, versions: dict[str, str], wait: Callable[[], Any] = lambda: None) -> None:
    """Describes itself, then does what it is told, line by line.

    Args:
        works: kind to what starts one unit of it.
        params: number of parameters of what works, or such numbers by name.
        versions: of the libraries, by name.
        wait: returns when all that was started is finished; needed where calls return before.
    """
    print(json.dumps({"params": params, "versions": versions}), flush=True)
    for line in sys.stdin:
        if line.strip() == "wait":
            wait()
            print("done", flush=True)
        else:
            works[line.strip()]()
