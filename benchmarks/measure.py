"""How speed is measured: medians of warmed-up blocks of calls, variants taking turns in one process."""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

__all__ = ["Measured", "compare", "peak_device_bytes", "peak_host_bytes", "ratio"]

Call = Callable[[], Any]
"""Starts one unit of work and returns arrays that are ready when it is done."""


class Measured(NamedTuple):
    """What one variant took.

    Attributes:
        compile_seconds: the first call, less the median of the others.
        rates: calls per second in every block.
        host_bytes: the most memory that the process held until this variant was warm.
        device_bytes: the most memory in use on one device until then, or `None` where the platform does not tell.
    """

    compile_seconds: float
    rates: list[float]
    host_bytes: int
    device_bytes: int | None

    @property
    def rate(self) -> float:
        """Median of the calls per second."""
        return statistics.median(self.rates)


def _seconds(call: Call, num: int) -> float:
    """Time of `num` calls, to the end of the last."""
    start = time.perf_counter()
    for _ in range(num):
        out = call()
    jax.block_until_ready(out)
    return time.perf_counter() - start


def compare(variants: dict[str, Call], *, repeats: int, seconds: float) -> dict[str, Measured]:
    """Measures variants of the same work in turns, so that what else the machine does strikes all of them.

    A block of each that does not count comes first, while the memory that the process keeps still grows.

    Args:
        variants: name to call; the first call of each compiles. Memory is read in this order.
        repeats: number of blocks of each.
        seconds: length of a block, at least; a block holds at least one call.

    Returns:
        Name to what it took.
    """
    first, memory, sizes = {}, {}, {}
    for name, call in variants.items():
        first[name] = _seconds(call, 1)
        warm = _seconds(call, 2) / 2
        memory[name] = peak_host_bytes(), peak_device_bytes()
        sizes[name] = max(1, round(seconds / warm))
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(-1, repeats):
        for name in list(variants)[:: 1 if repeat % 2 else -1]:
            rate = sizes[name] / _seconds(variants[name], sizes[name])
            if repeat >= 0:
                rates[name].append(rate)
    return {
        name: Measured(max(0.0, first[name] - 1 / statistics.median(rates[name])), rates[name], *memory[name])
        for name in variants
    }


def ratio(one: Measured, other: Measured) -> float:
    """How many times as fast one is: the median over pairs of blocks that were timed in the same turn."""
    return statistics.median(a / b for a, b in zip(one.rates, other.rates, strict=True))


def peak_host_bytes() -> int:
    """High-water mark of this process's resident memory."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def peak_device_bytes() -> int | None:
    """High-water mark of the memory in use on the fullest device of this process; `None` where it is not counted."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s), default=None)
