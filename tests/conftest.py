"""Eight CPU devices for every test, quick compilation, and annotations checked while the tests run."""

import gc
import os
import sys

import pytest
from jaxtyping import install_import_hook

FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"

install_import_hook("jaxgen", "beartype.beartype")


@pytest.fixture(autouse=True, scope="module")
def own_programs():
    """Compiled programs are forgotten with their file: beside thousands of them, all that follows takes longer.

    Where several processes test, each should get whole files (`--dist loadfile`).
    """
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()
