"""The benchmarks against peers and closed forms: a peer that only answers, and the error of a likelihood."""

import collections

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
    """Ours trains at twice the rate of the peer."""
    rates = {"train": (4.0, 2.0), "forward": (60.0, 50.0), "sample": (1.0, 1.0)}
    found = {
        kind: {name: Measured(0.0, [rate], 0, None) for name, rate in zip(("jaxgen", "diffusers"), pair, strict=True)}
        for kind, pair in rates.items()
    }
    lines = peers.table(found, [1.2, 1.0, 1.01], 64).splitlines()
    assert lines[1].split() == ["train", "4", "2", "2.00", "256"]
    assert lines[4] == "jaxgen: 50 steps cost 1.010 (1.000 to 1.200) x 50 forward passes"


def test_a_sample_is_priced_against_as_many_forward_passes_as_it_has_steps():
    calls = collections.Counter()
    found = peers.prices(lambda: calls.update(["forward"]), lambda: calls.update(["sample"]), repeats=3)
    assert len(found) == 3
    assert calls["forward"] == peers.NUM_STEPS * calls["sample"]


def test_errors_of_the_likelihood_fall_with_the_steps(monkeypatch, tmp_path):
    monkeypatch.setattr(likelihood, "STEPS", (5, 20))
    found = likelihood.errors(paths.cosine(), 2)
    assert found[1] < 1e-3 < found[0]
    assert "<svg" in likelihood.figure({"two": found})


def test_the_sizes_of_a_benchmark_are_checked():
    with pytest.raises(UserError, match="--batch must be above 0, got 0"):
        peers.main(["--peer", "true", "--batch", "0"])
