"""What the docstring of every config says: commands that parse, time, hardware, and numbers that RESULTS.md has."""

import pathlib
import re
import shlex

import pytest

from experiments import configs, train

RESULTS = (pathlib.Path(__file__).parents[2] / "RESULTS.md").read_text(encoding="utf-8")
NUMBER = r"\d+\.\d+"
COUNTED = "million|CPU minutes|CPU seconds|minutes|seconds"
"""Behind a number that is not a result."""


def docstring(name):
    return configs.load(name).__doc__


def commands(text):
    """The arguments of every `python -m experiments.train` of a docstring, lines that go on joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[3:] for line in lines if line.startswith("    python -m experiments.train ")]


def flags(text):
    """The arguments of every `--flag value` in the sentences of a docstring."""
    return [shlex.split(found) for found in re.findall(r"`(--[\w-]+ [^`]+)`", " ".join(text.split()))]


def measured(text):
    """The decimal numbers in the sentences of a docstring, as they are written; times and sizes are left out."""
    for other in (r"(?m)^    .*(\n        .*)*", r"`[^`]*`", r"https?://\S+"):
        text = re.sub(other, "", text)
    return re.findall(rf"(?<![\w.])({NUMBER})(?!\w| (?:{COUNTED})\b)", " ".join(text.split()))


def sections(name):
    """What RESULTS.md says under the headings below which it names a config."""
    return "".join(part for part in re.split(r"(?m)^## ", RESULTS) if re.search(rf"\b{name}\b", part))


def recorded(number, numbers):
    """Whether one of the numbers, rounded to as many places as `number` has, is `number`."""
    places = len(number.split(".")[1])
    return any(f"{float(n):.{places}f}" == number for n in numbers)


@pytest.mark.parametrize("name", configs.names())
def test_a_docstring_has_commands_of_its_config_and_they_parse(name):
    """Oracle: the parser of `train`."""
    found = commands(docstring(name))
    assert found != []
    for argv in found:
        assert train._parse(argv)[0] == name
    for argv in flags(docstring(name)):
        train._parse([name, "--workdir", "run", *argv])


@pytest.mark.parametrize("name", configs.names())
def test_a_docstring_says_how_long_it_took_and_on_what(name):
    text = " ".join(docstring(name).split())
    assert re.search(r"(\d|[Hh]alf a) (CPU )?(minutes?|seconds?)\b", text)
    assert re.search(r"AMD EPYC|Intel Xeon", text)


@pytest.mark.parametrize("name", configs.names())
def test_the_numbers_of_a_docstring_are_in_the_results(name):
    """Oracle: the record of what was measured, and of what is published."""
    numbers = measured(docstring(name))
    assert numbers != []
    assert [n for n in numbers if not recorded(n, re.findall(NUMBER, sections(name)))] == []


def test_commands_flags_and_numbers_are_found():
    command = "    python -m experiments.train a --b 1 \\\n        --c 2\n"
    text = f"One.\n\n{command}\nWith `--d 3\n--e 4.5`: -97.3 and 1.05\nbits/dim, 6.6 %, 2.5 minutes; BLEU 33.1. `--f`"
    assert commands(text) == [["a", "--b", "1", "--c", "2"]]
    assert flags(text) == [["--d", "3", "--e", "4.5"]]
    assert measured(text) == ["97.3", "1.05", "6.6", "33.1"]
    assert recorded("97.3", ["97.28"])
    assert not recorded("97.3", ["97.38", "9.73"])
