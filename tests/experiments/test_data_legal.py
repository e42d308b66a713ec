"""Data that no model can be trained on is refused at the door, in one line that names where it lies."""

import sys

import numpy as np
import pytest

from experiments import cli, data, train
from experiments.data import legal
from experiments.data.records import Dataset, Split
from experiments.errors import UserError

REALS = Split(np.eye(3, 2, dtype=np.float32), np.array([0, 1, 2], np.int32))
LEVELS = Split(np.array([[0, 1], [3, 2]], np.uint8))


def dataset(split, num_levels=0, num_classes=3):
    return Dataset("made", split, split, split, num_levels=num_levels, num_classes=num_classes, protocol="")


def spoiled(row, value):
    x = REALS.x.copy()
    x[row, 1] = value
    return REALS._replace(x=x)


@pytest.mark.parametrize("legal_data", [dataset(REALS), dataset(LEVELS, 4), dataset(REALS._replace(cond=None))])
def test_legal_data_is_unchanged(legal_data):
    assert legal.checked(legal_data) is legal_data


@pytest.mark.parametrize(
    ("illegal", "message"),
    [
        (dataset(REALS)._replace(valid=spoiled(1, np.nan)), "made, valid part: 1 of 3 rows .*, the first is row 1"),
        (dataset(REALS)._replace(test=spoiled(2, -np.inf)), "made, test part: 1 of 3 rows .* row 2"),
        (
            dataset(REALS)._replace(train=spoiled([0, 2], 1)),
            "made, train part: column 1 must vary, and all of its 3 .* 1$",
        ),
        (dataset(LEVELS, 3), "levels must be from 0 to 2, got 3 in row 1"),
        (dataset(LEVELS._replace(x=LEVELS.x.astype(np.int32) - 1), 4), "from 0 to 3, got -1 in row 0"),
        (dataset(LEVELS._replace(x=LEVELS.x.astype(np.float32)), 4), "must be integers .* type float32"),
        (dataset(REALS, num_classes=2), "labels must be from 0 to 1, got 2 in row 2"),
        (dataset(REALS._replace(cond=REALS.cond[:2])), "2 labels for 3 rows"),
    ],
)
def test_illegal_data_is_named(illegal, message):
    with pytest.raises(UserError, match=message):
        legal.checked(illegal)


@pytest.mark.parametrize(
    ("rows", "value", "message"),
    [
        (1, np.nan, "train part: 1 of 3 rows hold NaN or infinity, the first is row 1"),
        ([0, 2], 1, "train part: column 1 must vary, and all of its 3 values are 1"),
    ],
)
def test_such_data_ends_the_command_with_one_line(tmp_path, monkeypatch, capsys, rows, value, message):
    """Exit code 2, the row or the column on stderr, and no run directory."""
    train_part = spoiled(rows, value)._replace(cond=None)
    bad = dataset(REALS._replace(cond=None), num_classes=0)._replace(train=train_part)
    monkeypatch.setitem(data._GREY, "digits", ("digits", lambda: bad))
    workdir = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["train", "real_nvp_toy", "--data", "digits", "--workdir", str(workdir)])
    with pytest.raises(SystemExit) as end:
        cli.run(train.main, train.PROG)
    lines = capsys.readouterr().err.splitlines()
    assert (end.value.code, len(lines)) == (2, 1)
    assert message in lines[0]
    assert not workdir.exists()


def test_a_first_batch_that_no_flow_can_start_from_ends_the_command_with_one_line(tmp_path, monkeypatch, capsys):
    """The column varies, in one of forty rows, but not in the two from which the flow takes its first scales."""
    x = np.stack([np.arange(40.0), np.arange(40) == 17], 1).astype(np.float32)
    monkeypatch.setitem(data._GREY, "digits", ("digits", lambda: dataset(Split(x), num_classes=0)))
    command = ["train", "neural_spline_flow_toy", "--data", "digits", "--batch-size", "2", "--parallel", "jit"]
    monkeypatch.setattr(sys, "argv", [*command, "--workdir", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as end:
        cli.run(train.main, train.PROG)
    lines = [line for line in capsys.readouterr().err.splitlines() if "starting" not in line]
    assert (end.value.code, len(lines)) == (2, 1)
    assert "got channel 1 of the first batch at params" in lines[0]
