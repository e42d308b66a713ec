"""The command that measures samples under many settings."""

import json

import pytest

from experiments import sweep
from experiments.errors import UserError


def test_every_combination_is_measured_and_drawn(conditional_run, capsys):
    """Without noise the samples are the mean images, whose spread is none: worse than with it."""
    argv = [str(conditional_run), "--parallel", "jit", "--num", "200", "--over", "temperature=0,1"]
    assert sweep.main(argv) == 0
    points = json.loads((conditional_run / "sweep.json").read_text())["points"]
    assert [point["setting"] for point in points] == [{"temperature": "0"}, {"temperature": "1"}]
    assert points[0]["rows"][0]["value"] > points[1]["rows"][0]["value"]
    floors = [point["rows"][0]["floor"] for point in points]
    assert floors[0] == floors[1]
    text, svg = capsys.readouterr().out, (conditional_run / "sweep.svg").read_text()
    assert "training data" in text
    assert svg.count('id="line2d') > 2
    assert "temperature" in svg


def test_the_last_field_changes_fastest():
    found = sweep.combinations(["a=1,2", "b=x,y"])
    assert [tuple(point.values()) for point in found] == [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]


@pytest.mark.parametrize("over", ["a", "a=", "a=1,,2", "=1"])
def test_a_field_without_values_is_refused(over):
    with pytest.raises(UserError, match="--over takes FIELD=VALUE,VALUE"):
        sweep.combinations([over])
