"""What the commands know of the devices."""

import ctypes.util
import json
import os
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments import devices
from experiments.errors import UserError
from jaxgen.nets import attention


def test_an_option_that_the_compiler_refuses_is_left_out(monkeypatch):
    """Of two options, the one that XLA does not know is dropped, and compiling with the other works."""
    known = {"xla_backend_optimization_level": "1"}
    monkeypatch.setattr(devices, "CPU_OPTIONS", {**known, "xla_no_such_option": "1"})
    assert devices.cpu_compiler_options() == known
    assert jax.jit(lambda x: x + 1, compiler_options=devices.compiler_options())(1) == 2


def test_no_options_where_there_is_no_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert devices.compiler_options() is None


@pytest.mark.parametrize(("name", "num"), [("jit", 1), ("pmap", 8), ("mesh", 8), (None, 8)])
def test_placements_by_name(name, num):
    assert devices.placement(name).num_devices == num


def test_an_unknown_placement_is_named():
    with pytest.raises(UserError, match="jit, pmap, mesh, got 'tmap'"):
        devices.placement("tmap")


def test_the_environment_is_plain_and_does_not_name_the_machine():
    text = json.dumps(devices.environment())
    assert jax.__version__ in text
    assert platform.node() not in text or len(platform.node()) < 4


FAULTS = """
import resource, sys
from experiments import devices
if sys.argv[1] == "keep" and not devices.keep_memory():
    sys.exit(3)
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * 2**26
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(devices.allocator(), faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the GNU C library only")
@pytest.mark.parametrize("allocator", ["glibc", "jemalloc"])
def test_memory_that_is_kept_costs_no_page_faults_when_it_is_used_again(allocator):
    """The kernel's own count of page faults, of 64 MiB written for the third time."""
    env = {name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "LD_PRELOAD")}
    if allocator == "jemalloc":
        env["LD_PRELOAD"] = ctypes.util.find_library("jemalloc") or pytest.skip("needs jemalloc on the system")
    pages = 2**26 // os.sysconf("SC_PAGE_SIZE")
    for how in ("keep", "not"):
        said = subprocess.check_output([sys.executable, "-c", FAULTS, how], text=True, env=env).split()
        assert said[0] == allocator
        assert int(said[1]) < pages / 100 if how == "keep" else int(said[1]) > pages / 2


@pytest.fixture
def restored_cache():
    names = [name for name in jax.config.values if "compilation_cache" in name or "persistent_cache" in name]
    before = {name: jax.config.values[name] for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("restored_cache")
def test_setup_keeps_short_compilations(monkeypatch, tmp_path):
    """After `setup`, compiling even a trivial function leaves a file in the user's own cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    devices.setup()
    jax.clear_caches()
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
    jax.jit(lambda x: x * 17 + 3)(2.0).block_until_ready()
    assert list((tmp_path / "jaxgen").rglob("jit_*"))
    compilation_cache.reset_cache()


class Gpu:
    """A first device of NVIDIA, as far as one is asked here."""

    platform = "gpu"
    client = type("Client", (), {"platform_version": "PJRT C API\ncuda 13000"})()


@pytest.mark.parametrize("there", [True, False])
def test_the_fused_kernel_is_asked_for_where_there_is_an_nvidia_gpu(monkeypatch, there):
    asked = []
    monkeypatch.setattr(attention, "attend_fused", lambda *qkv, **options: asked.append((qkv, options)))
    if there:
        monkeypatch.setattr(devices.jax, "devices", lambda: [Gpu])
    qkv = [jnp.ones((1, 4, 2, 8), jnp.bfloat16)] * 3
    found = devices.attend_fused(*qkv, is_causal=True)
    assert (found is None, asked) == ((True, [(tuple(qkv), {"is_causal": True})]) if there else (False, []))
