"""What a person at the terminal sees and does: the progress bar, and Ctrl-C."""

import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupts", "Progress", "say"]

SECONDS_BETWEEN_LINES = 10.0


def say(text: str) -> None:
    """Prints one line on stderr, where stdout is left for results."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """A progress bar with the speed and the loss; a plain line now and then where stderr is no terminal."""

    def __init__(self, name: str, start: int, total: int, *, silent: bool = False) -> None:
        """Takes the name of the config, the step before the first one, the last one, and whether to say nothing."""
        from tqdm import tqdm

        self._name, self._total, self._silent = name, total, silent
        self._plain = not sys.stderr.isatty()
        self._last, self._began = 0.0, time.perf_counter()
        look = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        options = {"bar_format": look, "dynamic_ncols": True, "disable": silent or self._plain}
        self._bar: Any = tqdm(initial=start, total=total, desc=name, **options)
        if not silent:
            self._say(f"{name}: {f'resuming at step {start}' if start else 'starting'}, to step {total}")

    def compiled(self) -> None:
        """Says how long the first step took, most of which is compilation."""
        self._say(f"{self._name}: first step after {time.perf_counter() - self._began:.1f} s")

    def show(self, step: int, record: Mapping[str, float]) -> None:
        """Shows the metrics at a step."""
        names = {"loss": "loss", "valid_loss": "valid loss", "steps_per_second": "steps/s"}
        shown = {short: f"{record[name]:.4g}" for name, short in names.items() if name in record}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._bar.n)
        if self._plain and (step == self._total or time.perf_counter() - self._last > SECONDS_BETWEEN_LINES):
            self._last = time.perf_counter()
            self._say(f"{self._name}: step {step}/{self._total}  " + "  ".join(f"{k} {v}" for k, v in shown.items()))

    def _say(self, text: str) -> None:
        if not self._silent:
            self._bar.write(text, file=sys.stderr)
            sys.stderr.flush()

    def __enter__(self) -> Self:
        """Is ready once it is made."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the bar."""
        self._bar.close()


class Interrupts:
    """Turns the first SIGINT or SIGTERM into a wish to stop (`asked`); a second one has its usual effect."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.asked = False
        self._before: dict[int, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __enter__(self) -> Self:
        """Listens (in the main thread; Python has signals nowhere else)."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        """Leaves the signals as they were."""
        self._restore()
