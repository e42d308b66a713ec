import base64
import html.parser
import json
import re
import shlex
import shutil

import pytest

from experiments import evaluate, report, sample, summaries, train
from experiments.errors import UserError


class Page(html.parser.HTMLParser):
    """What a page would load, what it says, and whether every element is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, path):
        super().__init__()
        self.source, self.addresses, self.text, self.open, self.rows = path.read_text(), [], "", [], []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "data", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "tr" in self.open:
            self.rows[-1] += data

    def row(self, *words):
        (found,) = [row for row in self.rows if all(word in row for word in words)]
        return found


@pytest.fixture(scope="module")
def measured(plain_run, tmp_path_factory):
    """A copy of the unconditional run with samples and numbers."""
    directory = tmp_path_factory.mktemp("report") / "measured"
    shutil.copytree(plain_run, directory, ignore=shutil.ignore_patterns("samples"))
    sample.main([str(directory), "--num", "16", "--parallel", "jit"])
    sample.main([str(directory), "--num", "9", "--parallel", "jit"])
    evaluate.main([str(directory), "--num", "40", "--parallel", "jit", "--importance-samples", "2"])
    return directory


@pytest.fixture(scope="module")
def page(measured):
    assert report.main([str(measured)]) == 0
    return Page(measured / "report.html")


def test_the_page_is_whole_and_loads_nothing(page):
    assert page.open == []
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "url(http" not in page.source
    assert "@import" not in page.source
    assert "<script" not in page.source
    assert "prefers-color-scheme: dark" in page.source


def test_the_largest_grid_comes_first_beside_data(page, measured):
    pictures = [base64.b64decode(address.split(",", 1)[1]) for address in page.addresses if address[:5] == "data:"]
    first, data, second = pictures
    assert first == (measured / "samples" / "step000006_seed0_num16.png").read_bytes()
    assert second == (measured / "samples" / "step000006_seed0_num9.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert "16 test examples of digits" in page.text


def test_every_number_is_there_with_its_protocol(page, measured):
    evaluation = json.loads((measured / "evaluation.json").read_text())
    for row in evaluation["rows"]:
        value, error = evaluate.format_estimate(row["value"], row["error"])
        line = page.row(row["name"], value.replace("-", "−"), row["protocol"])
        assert error in line
    assert "Measured at step 6 on 40 of 497 test examples drawn with seed 0." in page.text


def test_config_environment_and_curves_are_there(page, measured):
    assert "3, 4" in page.row("widths")
    assert json.loads((measured / "environment.json").read_text())["versions"]["jax"] in page.row("versions")
    titles = re.findall(r"<svg.*?</svg>", page.source, re.S)
    assert len(titles) == 4  # loss, grad norm, two, steps per second
    assert "validation" in page.text
    assert "64" in page.row("batch_size") or "128" in page.row("batch_size")


@pytest.mark.parametrize("which", ["plain_run", "conditional_run"])
def test_the_command_makes_the_same_config_again(which, request):
    """Oracle: the parser of `train` reads from the printed command what the run was trained with."""
    summary = summaries.read(str(request.getfixturevalue(which)))
    python, minus_m, module, *argv = shlex.split(summary.train_command)
    assert (python, minus_m, module) == ("python", "-m", "experiments.train")
    name, args = train._parse(argv)
    assert name == summary.config_name
    assert json.loads(json.dumps(vars(args.config))) == summary.fields


def test_runs_are_compared_only_under_one_protocol(measured, conditional_run, tmp_path, capsys):
    evaluate.main([str(conditional_run), "--num", "40", "--parallel", "jit", "--importance-samples", "2"])
    path = tmp_path / "both.html"
    assert report.main([str(measured), str(conditional_run), "--output", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    page = Page(path)
    assert page.open == []
    exact = [row for row in page.rows if "exact" in row and "nats per image" in row]
    assert len(exact) == 2  # one given the label, one not
    assert all("–" in row for row in exact)
    assert "–" not in page.row("reconstruction error")
    assert "conditional, validation" in page.text


def numbers(value, error=0.1, **fields):
    row = {"name": "q", "unit": "nats", "how": "h", "protocol": "p", "better": "higher", "value": value, "error": error}
    return {"rows": [{**row, **fields}]}


def test_the_best_and_what_cannot_be_told_from_it_are_marked():
    """Two standard errors of the difference: 0.28 for errors of 0.1."""
    (line,) = report.compare([numbers(-80.0), numbers(-80.2), numbers(-80.3), numbers("-inf", "nan")])
    assert [cell.best for cell in line.cells] == [True, True, False, False]
    (line,) = report.compare([numbers(1.0, better="lower"), numbers(2.0, better="lower")])
    assert [cell.best for cell in line.cells] == [True, False]
    (line,) = report.compare([numbers(1.0, better=""), numbers(2.0, better="")])
    assert [cell.best for cell in line.cells] == [False, False]
    (line,) = report.compare([numbers(1.0)])
    assert [cell.best for cell in line.cells] == [False]


def test_another_protocol_is_another_line():
    lines = report.compare([numbers(1.0), numbers(2.0, protocol="other"), {}])
    assert [[cell is None for cell in line.cells] for line in lines] == [[False, True, True], [True, False, True]]
    assert not any(cell.best for line in lines for cell in line.cells if cell)


def test_text_from_files_cannot_become_markup(plain_run, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(plain_run, directory)
    evaluation = {**numbers(1.0, name="<script>alert(1)</script>"), "step": 6, "examples": "some"}
    (directory / "evaluation.json").write_text(json.dumps(evaluation))
    report.main([str(directory)])
    assert "<script" not in (directory / "report.html").read_text()


def test_without_samples_numbers_or_data_the_page_says_what_to_run(plain_run, tmp_path, monkeypatch, capsys):
    def gone(name):
        raise UserError(f"no {name} here")

    directory = tmp_path / "bare"
    shutil.copytree(plain_run, directory, ignore=shutil.ignore_patterns("samples", "evaluation.json"))
    monkeypatch.setattr("experiments.data.load", gone)
    report.main([str(directory)])
    page = Page(directory / "report.html")
    assert f"python -m experiments.sample {directory}" in page.text
    assert f"python -m experiments.evaluate {directory}" in page.text
    assert "no digits here" in capsys.readouterr().err


def test_mistakes_are_one_line(plain_run, tmp_path):
    with pytest.raises(UserError, match="nowhere is not a run directory"):
        report.main([str(tmp_path / "nowhere")])
    shutil.copy(plain_run / "config.json", tmp_path)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        report.main([str(tmp_path)])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json cannot be read"):
        report.main([str(tmp_path)])
    with pytest.raises(UserError, match=r"cannot write .*missing/page.html: No such file"):
        report.main([str(plain_run), "--output", str(tmp_path / "missing" / "page.html")])
