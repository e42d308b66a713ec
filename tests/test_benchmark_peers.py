"""The benchmarks against peers and closed forms: a peer that only answers, and the error of a likelihood."""

import collections
import json

import jax
import pytest

from benchmarks import decode, flows, gpt, likelihood, measure, peering, peers, serving
from benchmarks.measure import Measured
from experiments.errors import UserError
from jaxgen import paths

ANSWERS = """#!/bin/sh
echo '{"params": 7, "versions": {"torch": "0"}}'
while read kind; do echo "$kind" >> "$0.log"; if [ "$kind" = wait ]; then echo done; fi; done
"""


@pytest.fixture
def python(tmp_path):
    script = tmp_path / "python"
    script.write_text(ANSWERS)
    script.chmod(0o755)
    return script


def start(python):
    return peering.peer(str(python), "peer_diffusers", {"batch": 2}, kinds=peers.KINDS, needs="torch")


def test_the_peer_does_what_it_is_told_in_order_and_is_waited_for_once(python):
    with start(python) as peer:
        assert (peer.params, peer.versions) == (7, {"torch": "0"})
        started = [peer.work[kind]() for kind in ("train", "sample", "train")]
        jax.block_until_ready(started[-1])
    assert python.with_suffix(".log").read_text().split() == ["train", "sample", "train", "wait"]


@pytest.mark.parametrize(("python", "message"), [("no/such/python", "cannot be started"), ("true", "has no torch")])
def test_a_peer_that_cannot_answer_is_named(python, message):
    with pytest.raises(UserError, match=message), start(python):
        pass


def test_a_peer_that_stops_in_the_middle_is_no_quick_peer(python):
    python.write_text(ANSWERS.splitlines()[0] + "\n" + ANSWERS.splitlines()[1] + "\n")
    with pytest.raises(UserError, match="stopped"), start(python) as peer:
        jax.block_until_ready(peer.work["train"]())


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


def test_errors_of_the_likelihood_fall_with_the_steps_and_the_tolerance(monkeypatch):
    monkeypatch.setattr(likelihood, "STEPS", (5, 20))
    monkeypatch.setattr(likelihood, "TOLERANCES", (1e-2, 1e-5))
    found, adapted = (curve(paths.cosine(), 2) for curve in (likelihood.fixed, likelihood.adaptive))
    assert [num for num, _ in found] == [20, 80]
    assert found[1][1] < 1e-3 < found[0][1]
    assert adapted[1][1] < 1e-3 < adapted[0][1]
    assert adapted[0][0] < adapted[1][0]
    assert all(num % 6 == 2 for num, _ in adapted)
    assert "<svg" in likelihood.figure({"two": found}, {"two": adapted})


def test_a_ratio_is_the_median_over_turns():
    """In the second turn the machine is ten times as slow for both, in the third for one."""
    one, other = (Measured(0.0, rates, 0, None) for rates in ([4.0, 0.4, 4.0], [2.0, 0.2, 0.2]))
    assert measure.ratio(one, other) == pytest.approx(2.0)


def test_serving_starts_what_it_is_told_and_answers_when_it_waits(monkeypatch, capsys):
    done = []
    works = {kind: lambda kind=kind: done.append(kind) for kind in ("train", "sample x")}
    monkeypatch.setattr(serving.sys, "stdin", ["train\n", "sample x\n", "wait\n", "train\n"])
    serving.serve(works, {"x": 7}, {"torch": "0"}, lambda: done.append("waited"))
    assert done == ["train", "sample x", "waited", "train"]
    first, *answers = capsys.readouterr().out.splitlines()
    assert json.loads(first) == {"params": {"x": 7}, "versions": {"torch": "0"}}
    assert answers == ["done"]


@pytest.mark.parametrize("name", ["affine_2", "spline_2"])
def test_the_flows_that_are_timed_learn_and_draw(name):
    """Two train calls change the parameters, and draws are as many as asked for; parameters counted by hand."""
    case = flows.CASES[name]
    count, works = flows.ours(case._replace(num_layers=2), batch=8, draws=5)
    num_outputs = 3 * case.num_bins - 1 if case.num_bins else 2
    assert count == 2 * ((64 + 64) + (64 * 64 + 64) + (64 + 1) * num_outputs)
    first, second = (works["train"]()[1]["loss"] for _ in range(2))
    assert second < first
    assert works["sample"]().shape == (5, 2)


def test_the_gpt_that_is_timed_learns_and_draws():
    """Parameters counted as in GPT-2, and the vector of the start."""
    d = 8
    count, works = gpt.ours(gpt.Size(1, d, 2, 4), batch=3)
    block = 4 * d + (3 * d * d + 3 * d) + (d * d + d) + (8 * d * d + 5 * d)
    assert count == (gpt.NUM_TOKENS + 4 + 1) * d + block + 2 * d
    first, second = (works["train"]()[1]["loss"] for _ in range(2))
    assert second < first
    assert [works[kind]().shape for kind in ("draw_one", "draw_batch")] == [(1, 4), (3, 4)]


def test_tables_have_ours_over_theirs():
    found = {"a train": {name: Measured(0.0, [rate], 0, None) for name, rate in (("jaxgen", 6.0), ("zuko", 4.0))}}
    assert flows.table(found).splitlines()[1].split() == ["a", "train", "6", "4", "1.50"]
    pair = {
        "small train": {name: found["a train"][old] for name, old in (("jaxgen", "jaxgen"), ("transformers", "zuko"))}
    }
    assert gpt.table(pair, {"small train": 10}).splitlines()[1].split() == ["small", "train", "60", "40", "1.50"]


def test_flows_of_another_size_are_no_peers():
    flows.check_params("affine_2", {"jaxgen": 100, "zuko": 110})
    with pytest.raises(UserError, match="affine_2: zuko has 111 parameters, and 100 are expected"):
        flows.check_params("affine_2", {"jaxgen": 100, "zuko": 111})


@pytest.mark.parametrize(
    ("main", "args", "message"),
    [
        (peers.main, ["--peer", "true", "--batch", "0"], "--batch must be above 0, got 0"),
        (flows.main, ["--peer", "nflows=true"], "NAME=PYTHON with a name of .*, got 'nflows=true'"),
        (flows.main, ["--peer", "zuko=true", "--cases", "affine_3"], "got 'affine_3'"),
        (flows.main, ["--peer", "zuko=true", "--draws", "0"], "--draws must be above 0, got 0"),
        (gpt.main, ["--peer", "true", "--sizes", "small,huge"], "got 'huge'"),
        (gpt.main, ["--peer", "true", "--seconds", "0"], "--seconds must be above 0"),
        (decode.run, ["no_such_case"], "got 'no_such_case'"),
    ],
)
def test_bad_flags_are_named(main, args, message):
    with pytest.raises(UserError, match=message):
        main(args)
