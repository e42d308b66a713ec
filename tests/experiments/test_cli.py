"""Every mistake on the command line is one clear line on stderr and exit code 2, and touches nothing."""

import json
import os
import re
import subprocess
import sys

import pytest

from experiments import cli, configs, data, runs, train
from experiments.config import Config
from experiments.errors import UserError


def _command(argv, monkeypatch, capsys):
    """Runs the command in this process: exit code, and lines on stderr."""
    monkeypatch.setattr(sys, "argv", ["train", *map(str, argv)])
    with pytest.raises(SystemExit) as end:
        cli.run(train.main, train.PROG)
    return end.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["ppca_digit"], ["unknown config 'ppca_digit'", "did you mean ppca_digits?"]),
        (["nothing_like_it"], ["unknown config 'nothing_like_it'", "ppca_digits"]),
        ([], ["config is missing", "ppca_digits"]),
        (["ppca_digits"], ["--workdir"]),
        (["ppca_digits", "--batchsize", "8"], ["--batchsize", "did you mean --batch-size?"]),
        (["ppca_digits", "--batch", "8"], ["unknown flag --batch", "--batch-size"]),
        (["ppca_digits", "8"], ["unknown argument 8"]),
        (["ppca_digits", "--steps", "many"], ["--steps", "int", "'many'"]),
        (["ppca_digits", "--learning-rate", "fast"], ["--learning-rate", "float", "'fast'"]),
        (["ppca_digits", "--learning-rate", "nan"], ["--learning-rate", "finite", "nan"]),
        (["ppca_digits", "--batch-size", "0"], ["--batch-size", "at least 1", "0"]),
        (["ppca_digits", "--keep", "0"], ["--keep", "at least 1", "0"]),
        (["ppca_digits", "--steps"], ["--steps", "expected one argument"]),
        (["ppca_digits", "--parallel", "threads"], ["--parallel", "threads", "pmap"]),
        (["ppca_digits", "--process-id", "0"], ["--coordinator", "together"]),
        (["ppca_digits", "--batch-size", "12"], ["12", "8 devices"]),
        (["ppca_digits", "--batch-size", "100000"], ["100000", "rows of digits"]),
        (["ppca_digits", "--data", "digit"], ["unknown data set 'digit'", "digits"]),
        (["ppca_digits", "--num-latents", "64"], ["num_latents", "64"]),
        (["ppca_digits", "--conditional"], ["--conditional"]),
    ],
)
def test_a_mistake_is_one_line(argv, said, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    at = ["--workdir", workdir] if argv[1:] else []
    code, lines = _command([*argv, *at], monkeypatch, capsys)
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith("python -m experiments.train: ")
    assert [part for part in said if part not in lines[0]] == [], lines[0]
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (None, "JAXGEN_DATA"),
        (b"", "train-images-idx3-ubyte.gz"),
        (b"\x1f\x8b\x08 this is no gzip", "train-images-idx3-ubyte.gz"),
    ],
)
def test_unreadable_data_is_one_line(damage, said, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JAXGEN_DATA", raising=False)
    if damage is not None:
        (tmp_path / "mnist").mkdir()
        for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            (tmp_path / "mnist" / f"{part}-ubyte.gz").write_bytes(damage)
        monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    argv = ["ppca_digits", "--data", "mnist", "--workdir", tmp_path / "run"]
    code, lines = _command(argv, monkeypatch, capsys)
    assert (code, len(lines)) == (2, 1), lines
    assert said in lines[0]
    assert not (tmp_path / "run").exists()


def _run_directory(path, **fields):
    path.mkdir()
    fields = {"data": "digits", "seed": 0, "steps": 7, **fields}
    config = configs.load("ppca_digits").Config(**fields)
    record = {"config": "ppca_digits", "fields": {name: getattr(config, name) for name in config.__dataclass_fields__}}
    (path / "config.json").write_text(json.dumps(record))
    return {file: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize(
    ("flags", "said"), [(["--seed", "1"], ["seed=0", "seed=1"]), (["--num-latents", "3"], ["num_latents=10", "=3"])]
)
def test_a_workdir_of_other_fields_is_refused_untouched(flags, said, tmp_path, monkeypatch, capsys):
    before = _run_directory(tmp_path / "run")
    code, lines = _command(["ppca_digits", *flags, "--workdir", tmp_path / "run"], monkeypatch, capsys)
    assert (code, len(lines)) == (2, 1), lines
    assert [part for part in said if part not in lines[0]] == [], lines[0]
    assert {file: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


def test_a_run_goes_on_with_the_defaults_of_fields_that_came_later(tmp_path, capsys):
    """The config has a field that the run's config.json does not know: its default is taken, another value is not."""
    _run_directory(tmp_path / "run")
    path, cls = tmp_path / "run" / "config.json", configs.load("ppca_digits").Config
    record = json.loads(path.read_text())
    del record["fields"]["num_latents"]
    path.write_text(json.dumps(record))
    before = path.read_bytes()
    with pytest.raises(UserError, match="num_latents=None, not num_latents=3"):
        runs.claim(tmp_path / "run", "ppca_digits", cls(data="digits", seed=0, num_latents=3))
    assert path.read_bytes() == before
    runs.claim(tmp_path / "run", "ppca_digits", cls(data="digits", seed=0))
    assert f"num_latents={cls.num_latents}" in capsys.readouterr().err
    assert json.loads(path.read_text())["fields"]["num_latents"] == cls.num_latents


def test_workdirs_that_cannot_be_used(tmp_path, monkeypatch, capsys):
    """Another config's, a file, a path below one, a damaged config.json, checkpoints without one, no way to write."""
    names = ("other", "file", "broken", "headless", "blocked")
    other, file, broken, headless, blocked = (tmp_path / name for name in names)
    _run_directory(other)
    (other / "config.json").write_text((other / "config.json").read_text().replace("ppca_digits", "vae_digits"))
    file.write_text("x")
    broken.mkdir()
    (broken / "config.json").write_text("{")
    (headless / "checkpoints").mkdir(parents=True)
    (blocked / "lock").mkdir(parents=True)
    said = {
        other: "belongs to config vae_digits, not ppca_digits",
        file: "is a file",
        file / "below": "",
        broken: "config.json cannot be read",
        headless: "no config.json",
        blocked: "lock",
    }
    for workdir, text in said.items():
        code, lines = _command(["ppca_digits", "--workdir", workdir], monkeypatch, capsys)
        assert (code, len(lines)) == (2, 1), lines
        assert str(workdir) in lines[0]
        assert text in lines[0]
    assert file.read_text() == "x"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_workdir_that_may_not_be_written(tmp_path, monkeypatch, capsys):
    tmp_path.chmod(0o500)
    code, lines = _command(["ppca_digits", "--workdir", tmp_path / "run"], monkeypatch, capsys)
    assert (code, len(lines)) == (2, 1), lines
    assert "cannot write" in lines[0]


def test_dashes_and_underscores_are_the_same():
    name, one = train._parse(["ppca_digits", "--workdir", "a_b", "--batch_size", "8", "--num_latents=3"])
    _, other = train._parse(["--workdir=a_b", "--batch-size", "8", "--num-latents", "3", "ppca_digits"])
    assert name == "ppca_digits"
    assert one == other
    assert (one.workdir, one.config.batch_size, one.config.num_latents) == ("a_b", 8, 3)


def test_help_lists_configs_data_sets_and_fields_with_defaults(capsys):
    for argv in (["--help"], ["ppca_digits", "--help"]):
        with pytest.raises(SystemExit) as end:
            train.main(argv)
        text = capsys.readouterr().out
        assert end.value.code == 0
        fields = Config if argv == ["--help"] else configs.load("ppca_digits").Config
        for name, field in fields.__dataclass_fields__.items():
            assert re.search(rf"--{name.replace('_', '-')}\b", text)
            assert f"(default: {field.default})" in " ".join(text.split())
        assert [name for name in data.names() if f"  {name} " not in text] == []


def test_values_in_help_have_names(capsys):
    """Also where a flag has no type: simple-parsing would call its value "None"."""
    parser = cli.Parser("command")
    parser.add_argument("places", nargs="*", help="where")
    parser.add_argument("--json", default=None, help="a file")
    parser.add_argument("--size", type=int, default=3, help="a number")
    with pytest.raises(SystemExit):
        parser.parse(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "usage: command [-h] [--json JSON] [--size int] [places [places ...]]" in text
    assert "places where" in text


def test_bare_help_lists_every_config_with_its_summary(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = capsys.readouterr().out
    for name in configs.names():
        assert f"  {name} " in text
        assert configs.summary(name) in text


def test_the_real_process_exits_with_2_and_no_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "experiments.train",
        "ppca_digits",
        "--sedd",
        "1",
        "--workdir",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "did you mean --seed?" in done.stderr
