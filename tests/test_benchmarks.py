"""The clock of the benchmarks against one whose time is known, and the commands from flags to table."""

import json
import os
import subprocess
import sys

import numpy as np
import optax
import pytest

from benchmarks import command, measure, worker
from experiments import data
from experiments.config import Config, Experiment
from experiments.errors import UserError
from jaxgen.models.classical.ppca import ppca
from jaxgen.parallel import single
from jaxgen.types import Batch


class Clock:
    """Time passes only when a call says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def call(self, compile_seconds, seconds):
        todo = [compile_seconds]

        def call():
            self.now += seconds + (todo.pop() if todo else 0)
            return np.zeros(1)

        return call


def test_rates_and_compile_time_are_those_of_the_clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    calls = {"quick": clock.call(4.0, 0.25), "slow": clock.call(2.0, 0.5)}
    results = measure.compare(calls, repeats=3, seconds=2.0)
    assert results["quick"].rates == [4.0] * 3
    assert results["slow"].rates == [2.0] * 3
    assert (results["quick"].compile_seconds, results["slow"].compile_seconds) == (4.0, 2.0)


def test_variants_take_turns(monkeypatch):
    """A machine that turns twice as slow in the middle changes no ratio by more than the block in which it does."""
    order = []
    variants = {name: lambda name=name: order.append(name) or np.zeros(1) for name in "ab"}
    monkeypatch.setattr(measure.jax, "block_until_ready", lambda out: order.append("."))
    measure.compare(variants, repeats=2, seconds=0.0)
    assert "".join(order) == "a.aa.b.bb." + "a.b." + "b.a." + "a.b."


def test_the_first_block_does_not_count(monkeypatch):
    """A fourth call that takes ten times as long, as when the heap grows, is in no rate."""
    clock, called = Clock(), []
    monkeypatch.setattr(measure, "time", clock)
    quick, slow = clock.call(0.0, 1.0), clock.call(0.0, 10.0)

    def call():
        called.append(None)
        return slow() if len(called) == 4 else quick()

    assert measure.compare({"a": call}, repeats=2, seconds=0.0)["a"].rates == [1.0, 1.0]


def test_the_high_water_mark_rises_with_memory():
    """Touching 64 MiB more than ever before raises it by about as much."""
    before = measure.peak_host_bytes()
    block = np.ones(before // 8 + 2**23)
    assert measure.peak_host_bytes() - before > 0.9 * 2**26
    del block


@pytest.mark.parametrize(("name", "num_levels"), [("mnist", 256), ("mnist_binary", 2), ("fashion_mnist", 256)])
def test_missing_data_is_replaced_and_said(monkeypatch, tmp_path, name, num_levels):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    dataset, said = worker.load(name)
    assert (dataset.train.x.shape[1:], dataset.train.x.dtype) == ((28, 28, 1), np.uint8)
    assert dataset.num_levels == num_levels == int(dataset.train.x.max()) + 1
    assert said.startswith("random")
    with pytest.raises(UserError):
        worker.load("no_such_data")


def test_data_that_is_there_is_used():
    dataset, said = worker.load("digits")
    np.testing.assert_array_equal(dataset.train.x, data.load("digits").train.x)
    assert said == "digits"


def test_a_call_is_a_step_that_learns():
    """Fifty calls bring the loss of a small model down; sampling calls give new samples each."""
    experiment = Experiment(ppca(4, 1), optax.adam(0.1))
    batch = Batch(np.random.default_rng(0).normal(3, 1, (16, 4)).astype(np.float32))
    step = worker.train_calls(experiment, Config(), batch, single())
    losses = [float(step()[1]["loss"]) for _ in range(50)]
    assert losses[-1] < losses[0] - 1
    draw = worker.sample_calls(experiment, Config(), batch, single())
    first, second = draw(), draw()
    assert first.shape == (16, 4)
    assert not np.array_equal(first, second)


def benchmark(kind, *args):
    env = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, "-m", f"benchmarks.{kind}", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_the_command_prints_json_and_a_table(tmp_path):
    """One line of JSON with every number, for the tuned and the plain program, then the table."""
    flags = ["--size", "16", "--repeats", "1", "--seconds", "0.001", "--json", str(tmp_path / "out.json")]
    done = benchmark("sample", "ppca_digits", *flags)
    assert done.returncode == 0, done.stderr
    first, hardware, *_, head, line = done.stdout.splitlines()
    row = json.loads(first)
    assert row == json.loads((tmp_path / "out.json").read_text())
    assert (row["benchmark"], row["size"]) == ("sample", 16)
    assert min(report["per_second"] for report in (row, row["plain"])) > 0
    assert row["tuned_over_plain"] == pytest.approx(row["per_second"] / row["plain"]["per_second"])
    assert hardware == row["environment"]["hardware"]
    assert [head.split()[0], line.split()[0]] == ["config", "ppca_digits"]


def test_what_fails_is_said_below_the_table():
    assert command.table([{"benchmark": "sample", "config": "a", "error": "why"}]).splitlines()[-1] == "a: why"


@pytest.mark.parametrize("args", [["no_such_config"], ["--repeats", "0"], ["--size", "0"]])
def test_mistakes_are_one_line(args):
    done = benchmark("train_step", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
