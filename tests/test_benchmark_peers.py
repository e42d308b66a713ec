"""The benchmarks against peers and closed forms: a peer that only answers, and the error of a likelihood."""

import pytest

from benchmarks import likelihood, peers
from benchmarks.measure import Measured
from experiments.errors import UserError
from jaxgen import paths

ANSWERS = """#!/bin/sh
echo '{"params": 7, "versions": {"torch": "0"}}'
while read kind; do echo "$kind" >> "$0.log"; echo done; done
"""


def test_the_peer_does_what_it_is_told_in_order(tmp_path):
    script = tmp_path / "python"
    script.write_text(ANSWERS)
    script.chmod(0o755)
    with peers.peer(str(script), {"batch": 2}) as (described, work):
        assert described["params"] == 7
        assert [work[kind]() for kind in ("train", "sample", "train")] == ["done\n"] * 3
    assert (tmp_path / "python.log").read_text().split() == ["train", "sample", "train"]


@pytest.mark.parametrize(("python", "message"), [("no/such/python", "cannot be started"), ("true", "has no torch")])
def test_a_peer_that_cannot_answer_is_named(python, message):
    with pytest.raises(UserError, match=message), peers.peer(python, {}):
        pass


def test_the_table_has_ratios_and_the_price_of_a_sample():
    """Ours takes 60 forward passes for a sample and the peer 50; ours trains at twice the rate."""
    rates = {"train": (4.0, 2.0), "forward": (60.0, 50.0), "sample": (1.0, 1.0)}
    found = {
        kind: {name: Measured(0.0, [rate], 0, None) for name, rate in zip(("jaxgen", "diffusers"), pair, strict=True)}
        for kind, pair in rates.items()
    }
    lines = peers.table(found, 64).splitlines()
    assert lines[1].split() == ["train", "4", "2", "2.00", "256"]
    assert lines[4] == "jaxgen: 50 steps cost 60.0 forward passes, 1.200 a step"
    assert lines[5] == "diffusers: 50 steps cost 50.0 forward passes, 1.000 a step"


def test_errors_of_the_likelihood_fall_with_the_steps(monkeypatch, tmp_path):
    monkeypatch.setattr(likelihood, "STEPS", (5, 20))
    found = likelihood.errors(paths.cosine(), 2)
    assert found[1] < 1e-3 < found[0]
    assert "<svg" in likelihood.figure({"two": found})


def test_the_sizes_of_a_benchmark_are_checked():
    with pytest.raises(UserError, match="--batch must be above 0, got 0"):
        peers.main(["--peer", "true", "--batch", "0"])
