"""Devices, compiler options and the compilation cache: what a command does before it computes."""

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from experiments.errors import UserError
from jaxgen import parallel
from jaxgen.nets import attention

__all__ = [
    "PLACEMENTS",
    "attend_fused",
    "compiler_options",
    "cpu_compiler_options",
    "environment",
    "keep_memory",
    "placement",
    "setup",
]

PLACEMENTS = ("jit", "pmap", "mesh")
"""Names that `--parallel` takes."""

PACKAGES = ("jaxgen", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")

CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""Keeps convolutions off a library path of XLA:CPU that runs on one core (measured in `benchmarks/README.md`)."""

MALLOC_OPTIONS = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}
"""Numbers and values of `mallopt`: one heap, nothing outside it, nothing given back (GNU C library, <malloc.h>)."""


def setup() -> None:
    """Turns the persistent compilation cache on for everything, however short its compilation, and keeps memory.

    A second run then starts in seconds. The cache lies in the folder that `JAX_COMPILATION_CACHE_DIR` names, or else
    in the user's own cache folder, apart for each kind of processor. Call it before the first computation.
    """
    keep_memory()
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(_cache_dir()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def keep_memory() -> bool:
    """Has the allocator keep the memory that is freed, for the next step to use; true if it knows how.

    XLA:CPU allocates what a step needs anew at every step. Given back in between, a gigabyte costs a quarter of a
    million page faults each time, a fifth to a half of a training step (`benchmarks/README.md`). The GNU C library can
    keep it in one heap for all threads only. jemalloc, where it is loaded in its place (`LD_PRELOAD`), keeps it for
    each thread: what a core wrote last is then written again by the same core, not fetched from another's cache.
    """
    if (name := allocator()) == "other":
        return False
    library = ctypes.CDLL(None)
    if name == "jemalloc":
        return _never_decay(library.mallctl)
    return all([library.mallopt(option, value) for option, value in MALLOC_OPTIONS.values()])


def allocator() -> str:
    """Who allocates memory for this process: "jemalloc", "glibc" or "other"."""
    if platform.system() != "Windows" and hasattr(ctypes.CDLL(None), "mallctl"):
        return "jemalloc"
    return "glibc" if platform.libc_ver()[0] == "glibc" else "other"


def _never_decay(mallctl: Callable[..., int]) -> bool:
    """Sets for all arenas of jemalloc, those to come included, that unused pages are not given back (mallctl(3))."""

    def write(name: str, value: Any) -> bool:
        return mallctl(name.encode(), None, None, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value))) == 0

    num = ctypes.c_uint()
    mallctl(b"arenas.narenas", ctypes.byref(num), ctypes.byref(ctypes.c_size_t(ctypes.sizeof(num))), None, 0)
    decays, never = ("dirty_decay_ms", "muzzy_decay_ms"), ctypes.c_ssize_t(-1)
    for decay in decays:
        for arena in range(num.value):
            write(f"arena.{arena}.{decay}", never)  # an arena that nobody has used yet refuses, and takes the default
    return all([write(f"arenas.{decay}", never) for decay in decays])


def _cache_dir() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cpu = hashlib.sha256(_cpu_field("flags").encode()).hexdigest()[:8]
    return Path(root) / "jaxgen" / f"xla-{platform.machine()}-{cpu}"


def cpu_compiler_options() -> dict[str, str]:
    """The options that make XLA:CPU faster and that this version of it knows; each is tried on a trivial function."""
    return {name: value for name, value in CPU_OPTIONS.items() if _known(name, value)}


@functools.cache
def _known(name: str, value: str) -> bool:
    try:
        jax.jit(lambda x: x + 1, compiler_options={name: value}).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def compiler_options() -> dict[str, str] | None:
    """Compiler options for the devices that are there; `None` where there is nothing to add."""
    if jax.default_backend() != "cpu":
        return None
    return cpu_compiler_options() or None


def attend_fused(*qkv: Any, **options: Any) -> Any:
    """`nets.attention.attend_fused` where the first device is an NVIDIA GPU, otherwise `attend`; asked when traced."""
    device = jax.devices()[0]
    there = device.platform == "gpu" and "cuda" in device.client.platform_version
    return (attention.attend_fused if there else attention.attend)(*qkv, **options)


def placement(name: str | None = None, *, tuned: bool = True) -> parallel.Placement:
    """How to lay training and sampling on the devices.

    Args:
        name: "jit" (one device), "pmap" or "mesh"; `None` is "pmap" where there is more than one device.
        tuned: compile with `compiler_options()`.

    Raises:
        UserError: if the name is unknown.
    """
    name = name or ("pmap" if jax.device_count() > 1 else "jit")
    makers = dict(zip(PLACEMENTS, (parallel.single, parallel.pmap, parallel.mesh), strict=True))
    if name not in makers:
        raise UserError(f"--parallel must be one of {', '.join(PLACEMENTS)}, got {name!r}")
    return makers[name](compiler_options=compiler_options() if tuned else None)


def environment() -> dict[str, Any]:
    """What a number depends on besides the code: versions, devices, flags. Nothing in it names the machine."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "hardware": hardware(),
        "allocator": allocator(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": compiler_options() or {},
    }


def hardware() -> str:
    """One line: devices, processor, cores, memory."""
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    cpu = _cpu_field("model name") or platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{devices}; {cpu}, {cores} cores{_memory()}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_field(field: str) -> str:
    """A field of the first processor in Linux's own list; "" elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == field), "")


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return ""
    return f", {size / 2**30:.0f} GiB"
