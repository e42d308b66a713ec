"""The config of sounds: its loss and its bits per sample against the exact likelihood, its files, what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import classify, data, features, runs, sample, sounds, summaries, train, trained
from experiments.configs import wavenet_fsdd
from experiments.data import audio
from experiments.errors import UserError
from jaxgen.nets import causal
from jaxgen.types import Batch
from tests.experiments import spoken

SMALL = {"width": 4, "skip_width": 8, "cycle": 3, "cycles": 1, "window": 800, "burn": 0, "batch_size": 4}
LENGTH = 1360


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    spoken.write(path, spoken.files())
    return path


@pytest.fixture
def load(folder, monkeypatch):
    """Sounds of 17 hundredths of a second, so that sampling is short."""
    monkeypatch.setenv("JAXGEN_DATA", str(folder))
    monkeypatch.setattr(audio, "LENGTH", LENGTH)
    return data.load


def built(dataset, **fields):
    small = dataclasses.replace(wavenet_fsdd.Config(), **{**SMALL, **fields})
    experiment = wavenet_fsdd.build(small, dataset)
    params, _ = jax.jit(lambda: experiment.model.init(jax.random.key(0), Batch(*(a[:2] for a in dataset.test))))()
    rng = np.random.default_rng(0)
    return small, experiment, jax.tree.map(lambda a: a + 0.2 * np.float32(rng.normal(size=a.shape)), params)


@pytest.mark.parametrize(
    ("name", "mixture"), [("fsdd", 0), ("fsdd", 2), ("fsdd_16bit", 2)], ids=["mu_law", "mixture", "16bit"]
)
def test_the_loss_of_whole_sounds_is_their_likelihood_and_bits_leave_out_the_end(load, name, mixture):
    """By `log_prob` of sounds cut at their ends: no window, no mask, no end."""
    dataset = load(name)
    config, experiment, params = built(dataset, mixture=mixture, window=LENGTH)
    x, cond = dataset.test.x[3:4], dataset.test.cond[3:4]
    log_prob = np.asarray(jax.jit(experiment.model.log_prob)(params, x, cond))
    loss, _ = jax.jit(experiment.model.loss)(params, (), jax.random.key(0), Batch(x, cond))
    np.testing.assert_allclose(loss, -log_prob.mean() / LENGTH, rtol=1e-5)
    bits, _ = experiment.evaluations["bits per sample"].compute(params, None, dataset, data.Split(x, cond))
    only = x[:, : len(spoken.tone(3, 0, 0))]
    short = dataset._replace(train=data.Split(only, dataset.train.cond))
    cut = wavenet_fsdd.build(dataclasses.replace(config, window=80), short).model
    nats = -float(jax.jit(cut.log_prob)(params, only, cond)[0])
    np.testing.assert_allclose(bits, nats / only.size / np.log(2), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "mixture"),
    [("fsdd_text", 0), ("fsdd_text", 2), ("fsdd_16bit_text", 2)],
    ids=["mu_law", "mixture", "16bit"],
)
def test_windows_hear_the_text_at_their_own_place(load, name, mixture):
    """Behind the receptive field, each term of a window's loss is that of the whole sound."""
    dataset = load(name)
    end = dataset.num_levels - 1
    config, experiment, params = built(dataset, burn=80, mixture=mixture)
    x, cond = (jnp.asarray(part[5:9], jnp.int32) for part in dataset.test)
    conditional = wavenet_fsdd._conditional(config, end + 1)
    net = wavenet_fsdd._net(config, dataset, conditional)
    compiled = jax.jit(experiment.model.loss)
    terms = conditional.log_prob(x, causal.outputs(net, params, x, wavenet_fsdd._told(net, cond)))
    for seed in range(3):
        key = jax.random.key(seed)
        loss, _ = compiled(params, (), key, Batch(x, cond))
        _, counts, same = sounds.windows(key, x, width=800, hop=80, burn=80, end=end)
        first = np.asarray(same(jnp.arange(LENGTH // 80)[None].repeat(4, 0)))[:, 0] * 80
        before = x == end
        before = jnp.pad(before[:, :-1], ((0, 0), (1, 0)))  # after an end there are only ends
        used = [counts[i] & ~before[i, f : f + 800] for i, f in enumerate(first)]
        expected = [jnp.where(used[i], terms[i, f : f + 800], 0) for i, f in enumerate(first)]
        np.testing.assert_allclose(loss, -np.sum(expected) / 4 / 800, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("digits", {}, "of sounds, and digits has none: pass --data fsdd"),
        ("fsdd", {"window": 90}, "--window must be a multiple of 80, at most 1360 and above --burn, got 90 and 0"),
        ("fsdd", {"burn": 800}, "got 800 and 800"),
        ("fsdd_16bit", {}, "a categorical output of 65537 levels is too large: pass --mixture 10"),
        ("fsdd", {"mixture": 2, "temperature": 0.5}, "--temperature is of categorical outputs"),
        ("fsdd", {"temperature": 0.0}, "temperature must be above 0"),
        ("fsdd", {"recogniser": "missing.npz"}, "no file missing.npz"),
    ],
)
def test_bad_input_is_one_line(load, name, fields, message):
    with pytest.raises((UserError, ValueError)) as error:
        wavenet_fsdd.build(dataclasses.replace(wavenet_fsdd.Config(), **{**SMALL, **fields}), load(name))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def recogniser(folder, tmp_path_factory):
    """A classifier of the pictures of the tones."""
    path = tmp_path_factory.mktemp("recogniser") / "tones.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEN_DATA", str(folder))
        argv = ["fsdd_spectrograms", "--out", str(path), "--steps", "80", "--batch-size", "30"]
        assert classify.main(argv) == 0
    return path


def test_tones_are_recognised_and_those_of_other_digits_are_not(load, recogniser):
    """A model whose samples are the recordings of the labels, and one that says another digit for a third of them."""
    assert features.read_classifier(recogniser).meta["test_accuracy"] == 1
    dataset = load("fsdd_text")
    config, experiment, _ = built(dataset, recogniser=str(recogniser))
    recordings = jnp.asarray(dataset.train.x)

    def said(shift):
        which = lambda cond: cond[:, 0] * 10 + ((cond[:, 1] - 1) // 5 + shift * (jnp.arange(300) % 3 == 0)) % 10  # noqa: E731
        stub = experiment.model._replace(sample=lambda params, key, num, cond: recordings[which(cond)])
        evaluation = wavenet_fsdd._recognised(config, stub)
        return evaluation.compute({}, jax.random.key(0), dataset, dataset.test)[0]

    assert said(0) == 1
    assert said(1) == pytest.approx(2 / 3)
    assert "recognises 100.0% of the" in experiment.evaluations["digits recognised"].protocol


def test_a_run_writes_sounds_and_their_pictures(load, recogniser, tmp_path):
    """In the folder of samples: as many wav files as samples, as long as up to their ends, and one PNG; a report."""
    small = [text for name, value in SMALL.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    argv = ["wavenet_fsdd", "--data", "fsdd_text", "--workdir", str(tmp_path), "--steps", "2", "--parallel", "jit"]
    assert train.main([*argv, *small]) == 0
    assert sample.main([str(tmp_path), "--num", "20", "--parallel", "jit", "--set", "temperature=0.9"]) == 0
    stem = tmp_path / "samples" / "step000002_seed0_num20_temperature=0.9"
    drawn = np.load(stem.with_name(stem.name + ".npz"))
    np.testing.assert_array_equal(drawn["labels"], np.arange(20))
    assert drawn["x"].shape == (20, LENGTH)
    paths = sorted(stem.iterdir())
    assert [path.name for path in paths[9:11]] == ["009_9_george.wav", "010_0_jackson.wav"]
    assert stem.with_name(stem.name + ".png").stat().st_size > 1000
    for path, sound in zip(paths, sounds.heard(drawn["x"], 256), strict=True):
        assert len(path.read_bytes()) == 44 + 2 * len(sound)
    assert trained.stems(["recogniser=a/b/tones.npz", "temperature=1"]) == ["recogniser=tones.npz", "temperature=1"]
    assert summaries.data_figure(summaries.read(str(tmp_path)), runs.open_run(tmp_path).dataset) is not None
