"""The windows of a text against the text itself, and the config's own number against `log_prob`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data
from experiments.configs import transformer_shakespeare
from experiments.data.text import spelled
from experiments.errors import UserError
from jaxgen.types import Batch

CONTEXTS = {"shakespeare": 64, "shakespeare_256": 256}
TEXT = "".join("abcdefg\n"[i * i % 8] for i in range(4000))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(TEXT)
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "context"), CONTEXTS.items())
def test_windows_are_the_text(name, context):
    """Every character of a part but its first is predicted once, and training windows lie in the first nine tenths."""
    dataset = data.load(name)
    characters = np.array(sorted(set(TEXT.encode())))
    assert dataset.num_levels == len(characters)
    cut = len(TEXT) * 9 // 10
    for split, part in ((dataset.train, TEXT[:cut]), (dataset.valid, TEXT[cut:])):
        strings = spelled(split.x, characters)
        assert strings[0] + "".join(s[1:] for s in strings[1:]) == part[: 1 + context * len(strings)]
        assert len(part) - context * len(strings) <= context + 1
    windows = spelled(data.batch(dataset, 0, 3, 12).x, characters)
    assert len(set(windows)) > 1
    assert all(window in TEXT[:cut] and len(window) == context + 1 for window in windows)


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"data set shakespeare: .*input.txt is not there"):
        data.load("shakespeare")


@pytest.mark.usefixtures("folder")
def test_the_next_character():
    """It is -ln p of the windows, less what the first character alone contributes, over the 64 others."""
    dataset = data.load("shakespeare")
    small = dataclasses.replace(transformer_shakespeare.Config(), width=8, depth=1, num_heads=2)
    experiment = transformer_shakespeare.build(small, dataset)
    split = dataset.valid
    params, _ = jax.jit(lambda: experiment.model.init(jax.random.key(0), Batch(split.x)))()
    value, error = experiment.evaluations["next character"].compute(params, None, dataset, split)
    shorter = transformer_shakespeare.build(
        small, dataset._replace(train=dataset.train._replace(x=dataset.train.x[:, :1]))
    )
    cut = {**params, "positions_0": params["positions_0"][:1]}
    first = np.asarray(shorter.model.log_prob(cut, jnp.asarray(split.x[:, :1])))
    expected = (first - np.asarray(experiment.model.log_prob(params, jnp.asarray(split.x)))) / CONTEXTS["shakespeare"]
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(error, expected.std() / np.sqrt(len(expected)), rtol=1e-3)
