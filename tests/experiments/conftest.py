"""A run whose every number is known: a Gaussian around the mean image of each class, trained for a few steps.

Its config lies beside the tests, and is found like any other.
"""

import pathlib

import pytest

from experiments import configs, train


def _train(directory, *flags):
    argv = ["known_digits", "--workdir", str(directory), "--parallel", "jit", "--steps", "6", "--checkpoint-every", "2"]
    assert train.main([*argv, "--log-every", "2", *flags]) == 0
    return directory


@pytest.fixture(scope="session")
def known_configs():
    """Makes `known_digits` a config."""
    folder = str(pathlib.Path(__file__).parent / "known_configs")
    configs.__path__.append(folder)
    yield
    configs.__path__.remove(folder)


@pytest.fixture(scope="session")
def conditional_run(known_configs, tmp_path_factory):
    """A run directory of the conditional model, at step 6, with checkpoints 4 and 6 at least. Do not change it."""
    return _train(tmp_path_factory.mktemp("runs") / "conditional", "--conditional", "true", "--ema-decay", "0.9")


@pytest.fixture(scope="session")
def plain_run(known_configs, tmp_path_factory):
    """A run directory of the unconditional model, at step 6. Do not change it."""
    return _train(tmp_path_factory.mktemp("runs") / "plain", "--widths", "3", "4")
