"""A training process killed by SIGKILL at random moments ends with the bits of one that was never killed."""

import contextlib
import json
import multiprocessing
import os
import random
import sys
import time

import jax
import numpy as np
import pytest

from experiments import checkpoints, runs, train

STEPS, KILLS = 60, 10
COMMAND = ["ppca_digits", "--steps", str(STEPS), "--batch-size", "16", "--ema-decay", "0.9", "--log-every", "2"]
COMMAND += ["--checkpoint-every", "3", "--parallel", "jit"]
PRELOAD = ["experiments.train", "experiments.loop", "experiments.configs.ppca_digits", "orbax.checkpoint"]
PRELOAD += ["tensorboardX", "sklearn.datasets", "tqdm"]


def _train(workdir, cache):
    """The whole command, in a process of its own with one device."""
    os.environ["XLA_FLAGS"], os.environ["JAX_COMPILATION_CACHE_DIR"] = "", cache
    jax.config.update("jax_compilation_cache_dir", cache)
    sys.exit(train.main([*COMMAND, "--workdir", workdir]))


def _start(processes, workdir, cache):
    process = processes.Process(target=_train, args=(str(workdir), str(cache)))
    process.start()
    return process


def _saving(workdir):
    return any(".orbax-checkpoint-tmp" in path.name for path in (workdir / "checkpoints").glob("*"))


def _newest(workdir):
    return max(checkpoints.steps(workdir), default=0)


def _wait(process, condition):
    while process.is_alive() and not condition():
        time.sleep(0.001)


def _states_and_metrics(workdir):
    run = runs.open_run(workdir)
    untimed = [{k: r[k] for k in r if k in ("step", "loss", "valid_loss")} for r in runs.read_metrics(workdir)]
    return checkpoints.restore_latest(run), untimed


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def test_killed_ten_times_gives_the_bits_of_an_undisturbed_run(tmp_path, processes):
    whole, killed, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "cache"
    undisturbed = _start(processes, whole, cache)
    undisturbed.join()
    assert undisturbed.exitcode == 0

    chance, while_saving, progress = random.Random(7), 0, []
    for number in range(KILLS):
        before = _newest(killed)
        process = _start(processes, killed, cache)
        if number % 5 == 4:  # while it starts
            time.sleep(chance.uniform(0, 1))
        else:
            _wait(process, lambda before=before: _newest(killed) > before)
            if number % 2:  # while it saves
                _wait(process, lambda: _saving(killed))
                time.sleep(chance.uniform(0, 0.02))
            else:
                time.sleep(chance.uniform(0, 0.1))
        assert process.is_alive(), "the run ended before it could be killed: give it more steps"
        process.kill()
        process.join()
        while_saving += _saving(killed)
        progress.append(_newest(killed))
    assert while_saving >= 2, "no kill hit a save"
    assert 0 < progress[0] <= progress[-1] < STEPS, progress

    last = _start(processes, killed, cache)
    last.join()
    assert last.exitcode == 0
    (expected, expected_metrics), (state, metrics) = _states_and_metrics(whole), _states_and_metrics(killed)
    _assert_same_bits(expected, state)
    assert int(state.step) == STEPS
    assert metrics == expected_metrics, json.dumps(metrics[:3])


def _assert_same_bits(expected, state):
    assert jax.tree.structure(expected) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(state), strict=True):
        with contextlib.suppress(TypeError):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
