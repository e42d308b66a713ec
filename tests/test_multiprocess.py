"""Two processes on one machine, four devices each, against one process with eight."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import chex
import numpy as np
import pytest

from tests import multiprocess_worker

WORKER, NUM_PROCESSES, TIMEOUT = Path(multiprocess_worker.__file__), 2, 300


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start(port, process_id, out, log):
    env = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_force_host_platform_device_count=4")
    command = [sys.executable, WORKER, str(port), str(NUM_PROCESSES), str(process_id), out]
    return subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the processes computed together, and what this one computes alone."""
    folder, port = tmp_path_factory.mktemp("processes"), free_port()
    logs = [folder / f"{i}.log" for i in range(NUM_PROCESSES)]
    processes = [start(port, i, folder / "out.npz", logs[i].open("w")) for i in range(NUM_PROCESSES)]
    try:
        alone = multiprocess_worker.run()
        codes = [process.wait(TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * NUM_PROCESSES, "\n".join(log.read_text()[-3000:] for log in logs)
    with np.load(folder / "out.npz") as file:
        return dict(file), alone


@pytest.mark.parametrize(("model", "placement"), multiprocess_worker.CASES)
def test_two_processes_equal_one(results, model, placement):
    """State (chains too), metrics and samples, after moving the state to the host and back in the middle."""
    together, alone = ({k: v for k, v in r.items() if k.startswith(f"{model} {placement} ")} for r in results)
    assert together
    chex.assert_trees_all_close(together, alone, rtol=1e-4, atol=1e-5)
