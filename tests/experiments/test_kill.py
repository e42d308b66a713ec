"""A training process killed or interrupted ends with the bits of one that never was; two processes share a run."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time

import jax
import numpy as np
import pytest

from experiments import checkpoints, metrics_log, runs, train

STEPS, KILLS = 60, 10
COMMAND = ["ppca_digits", "--steps", str(STEPS), "--batch-size", "16", "--ema-decay", "0.9", "--log-every", "2"]
COMMAND += ["--checkpoint-every", "3", "--parallel", "jit"]
PRELOAD = ["experiments.train", "experiments.loop", "experiments.configs.ppca_digits", "orbax.checkpoint"]
PRELOAD += ["tensorboardX", "sklearn.datasets", "tqdm"]


def _train(workdir, cache, devices, flags):
    """The whole command, in a process of its own, with its words in a file."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    jax.config.update("jax_compilation_cache_dir", cache)
    sys.stderr = open(f"{workdir}.{'_'.join(flags[-1:])}.log", "a", buffering=1)
    sys.exit(train.main([*COMMAND, "--workdir", workdir, *flags]))


def _start(processes, workdir, cache, *flags, devices=1):
    process = processes.Process(target=_train, args=(str(workdir), str(cache), devices, flags))
    process.start()
    return process


def _finish(process):
    """Its exit code; it is killed if it hangs."""
    process.join(240)
    process.kill()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, processes, cache):
    """A run that nothing disturbed: its state and metrics."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert _finish(_start(processes, workdir, cache)) == 0
    return _states_and_metrics(workdir)


def _saving(workdir):
    """Whether files of a step lie there that is not a checkpoint yet."""
    parts = [int(path.stem) for path in (workdir / "checkpoints").glob("*.part")]
    return max(parts, default=0) > _newest(workdir)


def _newest(workdir):
    return max(checkpoints.steps(workdir), default=0)


def _wait(process, condition):
    while process.is_alive() and not condition():
        time.sleep(0.001)


def _states_and_metrics(workdir):
    run = runs.open_run(workdir)
    untimed = [{k: r[k] for k in r if k in ("step", "loss", "valid_loss")} for r in metrics_log.read_metrics(workdir)]
    return checkpoints.restore_latest(run), untimed


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def _assert_same_bits(expected, state):
    assert jax.tree.structure(expected) == jax.tree.structure(state)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(state), strict=True):
        with contextlib.suppress(TypeError):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


def test_killed_ten_times_gives_the_bits_of_an_undisturbed_run(tmp_path, processes, whole, cache):
    killed = tmp_path / "killed"
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
                time.sleep(chance.uniform(0, 0.01))
            else:
                time.sleep(chance.uniform(0, 0.1))
        assert process.is_alive(), "the run ended before it could be killed: give it more steps"
        process.kill()
        process.join()
        while_saving += _saving(killed)
        progress.append(_newest(killed))
    assert while_saving >= 2, "no kill hit a save"
    assert 0 < progress[0] <= progress[-1] < STEPS, progress

    assert _finish(_start(processes, killed, cache)) == 0
    (expected, expected_metrics), (state, metrics) = whole, _states_and_metrics(killed)
    _assert_same_bits(expected, state)
    assert int(state.step) == STEPS
    assert metrics == expected_metrics, json.dumps(metrics[:3])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_says_how_to_go_on(number, tmp_path, processes, whole, cache):
    """By a real signal, at a step that is no multiple of anything; then the bits of the undisturbed run."""
    run = tmp_path / "run"
    process = _start(processes, run, cache)
    _wait(process, lambda: _newest(run) > 0)
    os.kill(process.pid, number)
    assert _finish(process) == 130
    said = (tmp_path / "run..log").read_text().splitlines()[-1]
    stopped = _newest(run)
    assert 0 < stopped < STEPS
    assert (checkpoints.read_meta(run, stopped)["valid_loss"] is None) == (stopped % 3 != 0)  # it did not wait for it
    assert f"stopped at step {stopped} of {STEPS} and saved. To go on: python -m experiments.train ppca_digits" in said
    assert _finish(_start(processes, run, cache)) == 0
    _assert_same_bits(whole[0], _states_and_metrics(run)[0])


def test_two_processes_share_a_run(tmp_path, processes, cache):
    """Two processes with a device each are one process with two devices; only the first one writes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = ["--parallel", "pmap", "--steps", "9"]
    assert _finish(_start(processes, tmp_path / "one", cache, *flags, devices=2)) == 0
    flags += ["--coordinator", address, "--num-processes", "2", "--process-id"]
    both = [_start(processes, tmp_path / "two", cache, *flags, str(number)) for number in range(2)]
    assert [_finish(process) for process in both] == [0, 0]
    (expected, _), (state, metrics) = _states_and_metrics(tmp_path / "one"), _states_and_metrics(tmp_path / "two")
    for a, b in zip(jax.tree.leaves(expected.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert [record["step"] for record in metrics] == [2, 3, 4, 6, 8, 9]
    assert (tmp_path / "two.1.log").read_text() == ""
