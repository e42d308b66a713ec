"""The benchmark of compile time: a clock, loops that are the same flow, a program that does not grow, bad input."""

import json

import jax
import numpy as np
import pytest

from benchmarks import compile_time
from experiments.errors import UserError
from jaxgen.models.flows.glow import glow
from jaxgen.models.flows.real_nvp import real_nvp_image
from jaxgen.types import Batch

IMAGE = (4, 4, 1)
BUILD = {
    "glow": lambda depth, **how: glow(IMAGE, num_scales=1, num_steps=depth, features=2, **how),
    "real_nvp_image": lambda depth, **how: real_nvp_image(IMAGE, num_scales=1, num_layers=depth, features=2, **how),
}


def test_what_only_the_first_call_takes_is_compiling(monkeypatch):
    """A first call of 5 s, of which 4 compile."""
    now = iter([10.0, 15.0, 16.0])
    monkeypatch.setattr(compile_time.time, "process_time", lambda: next(now))
    assert compile_time.compile_seconds(lambda: np.zeros(1)) == 4.0


@pytest.mark.parametrize("name", BUILD)
def test_loops_are_the_same_flow_in_a_program_that_does_not_grow(name):
    """Without them every layer adds to it; up to eight layers are written out by default, and more are not."""
    x = jax.random.uniform(jax.random.key(0), (2, *IMAGE))
    unrolled, loops = ({depth: BUILD[name](depth, unroll=most) for depth in (2, 5)} for most in (5, 1))
    usual = {depth: BUILD[name](depth) for depth in (5, 9, 12)}
    params = jax.jit(unrolled[5].init)(jax.random.key(1), Batch(x))[0]
    values = [jax.jit(model.log_prob)(params, x) for model in (unrolled[5], loops[5])]
    np.testing.assert_allclose(*values, rtol=1e-5)
    lines = {}
    for form, models in (("unrolled", unrolled), ("loops", loops), ("usual", usual)):
        for depth, model in models.items():
            params = jax.eval_shape(model.init, jax.random.key(1), Batch(x))[0]
            lines[form, depth] = len(jax.jit(model.log_prob).lower(params, x).as_text().splitlines())
    assert lines["loops", 5] == lines["loops", 2]
    assert lines["unrolled", 5] > lines["unrolled", 2] + 3 * 10
    assert lines["usual", 5] == lines["unrolled", 5]
    assert lines["usual", 9] == lines["usual", 12] == lines["loops", 5]


def test_the_command_prints_a_line_for_each_flow_and_depth(monkeypatch, capsys):
    monkeypatch.setattr(compile_time, "IMAGE", IMAGE)
    monkeypatch.setattr(compile_time, "FLOWS", {"glow": (BUILD["glow"], IMAGE), "maf": compile_time.FLOWS["maf"]})
    assert compile_time.main(["--depths", "1,2", "--batch", "2", "--repeats", "1", "--seconds", "0.001"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["flow"], row["depth"]) for row in rows] == [("glow", 1), ("glow", 2), ("maf", 1), ("maf", 2)]
    assert all(row["steps_per_second"] > 0 for row in rows)
    assert ["slower_in_loops" in row for row in rows] == [True, True, False, False]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["vae"], "flows are of .*, got 'vae'"),
        (["--depths", "2,0"], "--depths must be numbers of at least 1 with commas between, got '0'"),
        (["--depths", "2;4"], "got '2;4'"),
        (["--batch", "0"], "--batch must be above 0, got 0"),
    ],
)
def test_bad_flags_are_named(args, message):
    with pytest.raises(UserError, match=message):
        compile_time.main(args)
