"""Prompts, and samples that are texts, by a small model of characters."""

import textwrap

import numpy as np
import pytest

from experiments import sample, train
from experiments.data.text import levels, spelled
from experiments.errors import UserError

TEXT = "abcdefg\n" * 500


def test_levels_are_the_places_of_characters():
    characters = np.array([10, 97, 98, 233])
    np.testing.assert_array_equal(levels("b\né", characters), [2, 0, 3])
    assert levels("", characters).shape == (0,)
    for string, wrong in (("abz", "'z'"), ("a€", "'€'")):
        with pytest.raises(UserError, match=f"the data has no character {wrong}, got '{string}'"):
            levels(string, characters)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run directory of a small model, after one step."""
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(TEXT)
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    argv = ["transformer_shakespeare", "--workdir", str(tmp_path / "run"), "--parallel", "jit", "--steps", "1"]
    assert train.main([*argv, "--width", "8", "--depth", "1", "--num-heads", "2", "--learning-rate", "0.1"]) == 0
    return tmp_path / "run"


def test_samples_that_are_texts_are_written(run, capsys):
    """Of a prompt, after which they differ and are the same again; after windows of the data; and of their own."""
    characters = np.array(sorted(set(TEXT.encode())))
    draw = lambda *flags: sample.main([str(run), "--parallel", "jit", "--num", "3", *flags])  # noqa: E731
    for _ in range(2):
        assert draw("--prompt", "gab\ned") == 0
    said = capsys.readouterr().out
    path = run / "samples" / "step000001_seed0_num3_prompt"
    page = path.with_suffix(".txt").read_text()
    assert said.count(page) == 2
    x = np.load(path.with_suffix(".npz"))["x"]
    assert [string[:6] for string in spelled(x, characters)] == ["gab\ned"] * 3
    assert len(np.unique(x, axis=0)) == 3
    assert page == "".join(textwrap.indent(string, "  ", bool) + "\n\n" for string in spelled(x, characters))
    assert draw("--complete", "40") == draw() == 0
    found = np.load(run / "samples" / "step000001_seed0_num3_complete40.npz")
    np.testing.assert_array_equal(found["x"][:, :, :40], np.repeat(found["start"][:, None, :40], 4, axis=1))
    pages = [(run / "samples" / f"step000001_seed0_num3{more}.txt").read_text() for more in ("", "_complete40")]
    assert [page.strip().count("\n\n") + 1 for page in pages] == [3, 15]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", "ab?"], "the data has no character '\\?', got 'ab\\?'"),
        (["--prompt", "a" * 65], "--prompt must give 1 to 64 of 65 rows or characters, got 65"),
        (["--prompt", ""], "--prompt must give 1 to 64 of 65 rows or characters, got 0"),
        (["--complete", "65"], "--complete must give 1 to 64 of 65 rows or characters, got 65"),
    ],
)
def test_prompts_that_cannot_be_are_named(run, flags, message):
    with pytest.raises(UserError, match=message):
        sample.main([str(run), *flags])
