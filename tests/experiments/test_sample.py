import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import checkpoints, configs, data, runs, sample, summaries, trained
from experiments.errors import UserError
from experiments.trained import Trained
from jaxgen.types import Batch


def draw(directory, *flags):
    """Runs the command; the arrays in the .npz."""
    assert sample.main([str(directory), "--parallel", "jit", *flags]) == 0
    newest = max((directory / "samples").glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    return newest.stem, dict(np.load(newest))


def damage(path):
    """Flips a byte in the middle of the largest file of a checkpoint."""
    largest = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def test_labels_come_in_rows_and_samples_are_those_of_their_class(conditional_run, capsys):
    """Oracle: 100 samples of N(mean_c, e^2) average to the mean of class c, 4 standard errors at most beside it."""
    stem, drawn = draw(conditional_run, "--num", "1000", "--seed", "3")
    assert stem == "step000006_seed3_num1000"
    assert all(f"{stem}.{ending}" in capsys.readouterr().out for ending in ("png",))
    np.testing.assert_array_equal(drawn["labels"], np.arange(1000) % 10)
    params = trained.open_trained(str(conditional_run)).params
    for label in range(10):
        x = drawn["x"][drawn["labels"] == label]
        _, p = stats.kstest(((x - params["mean"][label]) / np.e).ravel(), "norm")
        assert p > 1e-4


def test_one_class_one_seed_the_same_samples(conditional_run):
    stem, first = draw(conditional_run, "--num", "12", "--class", "7")
    assert stem == "step000006_seed0_num12_class7"
    np.testing.assert_array_equal(first["labels"], np.full(12, 7))
    np.testing.assert_array_equal(draw(conditional_run, "--num", "12", "--class", "7")[1]["x"], first["x"])
    assert (draw(conditional_run, "--num", "12", "--class", "7", "--seed", "1")[1]["x"] != first["x"]).any()


def test_fields_that_only_sampling_reads_can_be_set(conditional_run):
    """Without noise, samples are the mean of their class."""
    stem, drawn = draw(conditional_run, "--num", "10", "--set", "temperature=0")
    assert stem == "step000006_seed0_num10_temperature=0"
    np.testing.assert_allclose(drawn["x"], trained.open_trained(str(conditional_run)).params["mean"], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("learning_rate=1", "FIELD is one of temperature; got 'learning_rate=1'"),
        ("temperature", "got 'temperature'"),
        ("temperature=warm", "temperature must be of type float, got 'warm'"),
    ],
)
def test_other_fields_cannot_be_set(conditional_run, change, message):
    with pytest.raises(UserError, match=message):
        sample.main([str(conditional_run), "--set", change])


def test_all_devices_draw(plain_run):
    assert sample.main([str(plain_run), "--num", "11", "--parallel", "pmap", "--seed", "5"]) == 0
    drawn = np.load(plain_run / "samples" / "step000006_seed5_num11.npz")["x"]
    assert drawn.shape == (11, 8, 8, 1)
    assert len(np.unique(drawn)) == drawn.size


def test_the_moving_average_of_the_chosen_checkpoint_is_used(conditional_run):
    run = runs.open_run(conditional_run)
    for which, step in (("newest", 6), ("best", checkpoints.best_step(conditional_run)), ("4", 4)):
        opened, state = trained.open_trained(str(conditional_run), which), checkpoints.restore(run, step).state
        assert opened.step == step
        np.testing.assert_array_equal(opened.params["mean"], state.ema_params["mean"])
        assert (opened.params["mean"] != state.params["mean"]).any()


def test_chains_start_at_test_examples(plain_run):
    """The chains of the known model add 1."""
    stem, drawn = draw(plain_run, "--num", "20", "--from-data")
    assert stem.endswith("_from-data")
    np.testing.assert_array_equal(drawn["x"], drawn["start"] + 1)
    test = {image.tobytes() for image in runs.open_run(plain_run).dataset.test.x}
    assert all(image.tobytes() in test for image in drawn["start"])


def test_completions_begin_with_the_rows_of_test_examples_given_their_labels(conditional_run):
    """The known model draws the rows below from N(mean of the class, (temperature e)^2), without noise the mean."""
    stem, drawn = draw(conditional_run, "--num", "300", "--complete", "3", "--seed", "2")
    assert stem == "step000006_seed2_num300_complete3"
    assert drawn["x"].shape == (300, 4, 8, 8, 1)
    np.testing.assert_array_equal(drawn["x"][:, :, :3], np.repeat(drawn["start"][:, None, :3], 4, axis=1))
    test = runs.open_run(conditional_run).dataset.test
    known = {image.tobytes(): label for image, label in zip(*test, strict=True)}
    assert [known[image.tobytes()] for image in drawn["start"]] == drawn["labels"].tolist()
    params = trained.open_trained(str(conditional_run)).params
    noise = (drawn["x"] - params["mean"][drawn["labels"]][:, None])[:, :, 3:] / np.e
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4
    same = draw(conditional_run, "--num", "300", "--complete", "3", "--seed", "2")[1]["x"]
    np.testing.assert_array_equal(same, drawn["x"])
    assert len(np.unique(drawn["x"][:, :, 3:].reshape(1200, -1), axis=0)) == 1200


def test_a_picture_of_completions_shows_each_example_before_its_own(plain_run, monkeypatch):
    """Two groups of five pictures in a row; the caption says what they are."""
    pictures = []
    monkeypatch.setattr(sample.grids, "save_picture", lambda path, x, **options: pictures.append((x, options)))
    stem, drawn = draw(plain_run, "--num", "7", "--complete", "4")
    (shown, options), _ = pictures[0], pictures.clear()
    assert options["columns"] == 10
    groups = shown.reshape(7, 5, 8, 8, 1)
    np.testing.assert_array_equal(groups[:, 0], drawn["start"])
    np.testing.assert_array_equal(groups[:, 1:], drawn["x"])
    assert summaries._said(Path(f"{stem}.png")).endswith("each a test example and completions of its first 4 rows")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--complete", "0"], "--complete must give 1 to 7 of 8 rows or characters, got 0"),
        (["--complete", "8"], "--complete must give 1 to 7 of 8 rows or characters, got 8"),
        (["--complete", "-3"], "--complete must give 1 to 7 of 8 rows or characters, got -3"),
        (["--complete", "half"], "--complete"),
        (["--complete", "3", "--num", "498"], "at most the 497 test examples with --complete, got 498"),
        (["--complete", "3", "--from-data"], "--complete and --from-data exclude one another"),
        (["--complete", "3", "--class", "3"], "--class and --complete exclude one another"),
        (["--complete", "3", "--source", "a"], "--source and --complete exclude one another"),
        (["--complete", "3", "--prompt", "a"], "--complete and --prompt exclude one another"),
        (["--prompt", "a"], "--prompt: digits is not of texts that samples could begin with"),
        (["--class", "3"], "--class 3: this run is not conditional"),
        (["--num", "0"], "--num must be at least 1"),
        (["--num", "some"], "--num"),
        (["--checkpoint", "5"], "has no checkpoint 5; it has"),
        (["--checkpoint", "last"], "must be newest, best or a step, got 'last'"),
        (["--from-data", "--num", "498"], "at most the 497 test examples"),
        (["--nmu", "3"], "did you mean --num?"),
    ],
)
def test_mistakes_are_one_line(plain_run, flags, message):
    with pytest.raises(UserError) as error:
        sample.main([str(plain_run), *flags])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_label_out_of_range_is_named(conditional_run):
    with pytest.raises(UserError, match="--class must be from 0 to 9, got 10"):
        sample.main([str(conditional_run), "--class", "10"])


def test_a_model_without_chains_cannot_start_from_data(plain_run):
    run = runs.open_run(plain_run)
    model = Trained(run._replace(experiment=run.experiment._replace(sample_from=None)), 6, {})
    with pytest.raises(UserError, match="no chains"):
        sample._chains(model, 4, 0)


def test_a_model_that_completes_nothing_says_so(plain_run):
    run = runs.open_run(plain_run)
    model = Trained(run._replace(experiment=run.experiment._replace(complete=None)), 6, {})
    with pytest.raises(UserError, match="--complete: known_digits cannot complete examples"):
        sample._completions(model, 4, 0, 3)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ("pixel_cnn_mnist", {"features": 4, "depth": 1, "conditional": True}),
        ("pixel_cnn_mnist", {"features": 4, "depth": 1}),
        ("made_mnist", {"width": 8, "conditional": True}),
        ("made_mnist", {"width": 8}),
    ],
)
def test_configs_of_images_complete_them(config, fields):
    """20000 last rows of one upper part of digits pass a chi-squared test of p(x) / p(upper part), by all 256."""
    dataset, module = data.load("digits_binary"), configs.load(config)
    experiment = module.build(module.Config(data="digits_binary", **fields), dataset)
    told = lambda num: np.full(num, 3, np.int32) if fields.get("conditional") else None  # noqa: E731
    params, _ = jax.jit(experiment.model.init)(jax.random.key(0), Batch(dataset.test.x[:1], told(1)))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    upper = dataset.test.x[5, :7]
    x = jax.jit(experiment.complete)(params, jax.random.key(2), np.tile(upper, (20_000, 1, 1, 1)), told(20_000))
    np.testing.assert_array_equal(x[:, :7], np.tile(upper, (20_000, 1, 1, 1)))
    rows = np.array(list(itertools.product((0, 1), repeat=8)), np.uint8).reshape(256, 1, 8, 1)
    every = np.concatenate([np.tile(upper, (256, 1, 1, 1)), rows], 1)
    p = np.exp(np.asarray(jax.jit(experiment.model.log_prob)(params, every, told(256)), np.float64))
    counts = np.bincount(np.packbits(np.asarray(x)[:, 7, :, 0], axis=1)[:, 0], minlength=256)
    expected = 20_000 * p / p.sum()
    assert expected.max() > 1.5 * expected.min() > 7.5
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_an_ensemble_of_orders_completes_nothing():
    dataset, module = data.load("digits_binary"), configs.load("made_mnist")
    assert module.build(module.Config(width=8, num_masks=2), dataset).complete is None


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(plain_run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(plain_run, copy)
    *_, before, newest = checkpoints.steps(copy)
    damage(copy / "checkpoints" / str(newest))
    with pytest.raises(UserError, match=f"checkpoint {newest} "):
        trained.open_trained(str(copy), str(newest))
    assert trained.open_trained(str(copy)).step == before
    assert f"checkpoint {newest} " in capsys.readouterr().err
    for step in checkpoints.steps(copy):
        damage(copy / "checkpoints" / str(step)) if step != newest else None
    with pytest.raises(UserError, match="no checkpoint that can be restored"):
        trained.open_trained(str(copy))


def test_a_run_without_checkpoints_says_so(plain_run, tmp_path):
    shutil.copy(plain_run / "config.json", tmp_path)
    with pytest.raises(UserError, match="has no checkpoint yet"):
        sample.main([str(tmp_path)])


@pytest.mark.parametrize("command", ["sample", "evaluate", "report"])
def test_a_missing_run_is_one_line_and_exit_code_2(command, tmp_path):
    line = [sys.executable, "-m", f"experiments.{command}", str(tmp_path / "nowhere")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "nowhere is not a run directory" in done.stderr


def test_vectors_are_saved_without_a_picture(tmp_path, capsys):
    """Data that cannot be seen: the .npz alone."""
    part = data.Split(np.zeros((3, 5), np.float32))
    dataset = data.Dataset("vectors", part, part, part, num_levels=0, num_classes=0, protocol="")
    sample._write(tmp_path / "samples", "name", {"x": np.ones((4, 5))}, None, dataset)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["name.npz"]
    assert capsys.readouterr().out.count("\n") == 1
