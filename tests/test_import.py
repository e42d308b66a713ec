"""Importing the library is light: it loads nothing that only experiments need, and starts no device."""

import subprocess
import sys

import jaxgen

CODE = """
import sys
import jaxgen
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "a device was started"
heavy = {"sklearn", "matplotlib", "orbax", "tensorflow", "tensorflow_datasets", "tqdm", "jinja2", "experiments"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_import_is_light_and_starts_no_device():
    subprocess.run([sys.executable, "-c", CODE], check=True)


def test_every_public_name_is_there():
    assert all(hasattr(jaxgen, name) for name in jaxgen.__all__)
