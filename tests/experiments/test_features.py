"""The classifier whose features measure samples: trained on the embedded digits, written, read and refused."""

import json

import numpy as np
import pytest

from experiments import classify, data, evaluate, features
from experiments.errors import UserError


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "digits.npz"
    assert classify.main(["digits", "--out", str(path), "--steps", "200", "--batch-size", "64"]) == 0
    return path


def test_it_has_learned_to_classify(file):
    """The stored accuracy is that of the stored weights, far above one in ten."""
    dataset, (params, meta) = data.load("digits"), features.read_classifier(file)
    logits, hidden = features.network(meta, params)(np.float32(dataset.test.x) / 16)
    assert np.mean(np.argmax(logits, -1) == dataset.test.cond) == pytest.approx(meta["test_accuracy"])
    assert meta["test_accuracy"] > 0.85
    np.testing.assert_allclose(
        features.of_classifier(file, dataset).apply(dataset.test.x), hidden, rtol=1e-4, atol=1e-5
    )


def test_the_same_seed_gives_the_same_weights_and_another_does_not(file, tmp_path):
    first = features.digest(features.read_classifier(file).params)
    dataset = data.load("digits")
    train = lambda seed: features.digest(classify.train(dataset, steps=2, batch_size=64, seed=seed).params)  # noqa: E731
    assert train(0) == train(0)
    assert len({first, train(0), train(1)}) == 3


def test_evaluation_names_the_classifier_and_its_weights(file, plain_run):
    argv = [str(plain_run), "--parallel", "jit", "--num", "100", "--importance-samples", "1", "--features", str(file)]
    assert evaluate.main(argv) == 0
    rows = json.loads((plain_run / "evaluation.json").read_text())["rows"]
    (frechet,) = [row for row in rows if "Frechet" in row["name"]]
    assert frechet["name"] == "digits-classifier Frechet distance"
    assert f"weights {features.digest(features.read_classifier(file).params)}" in frechet["protocol"]
    assert frechet["value"] > 2 * frechet["floor"], "samples of an untrained Gaussian are no digits"


@pytest.mark.parametrize(("name", "message"), [("missing.npz", "no file .*missing.npz"), ("text.npz", "no classifier")])
def test_what_is_no_classifier_is_refused(tmp_path, name, message):
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(UserError, match=message):
        features.read_classifier(tmp_path / name)


def test_a_classifier_of_other_data_is_refused(file):
    other = data.load("digits_threshold")
    with pytest.raises(UserError, match="levels: 17, and digits_threshold has 2"):
        features.of_classifier(file, other)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["toy_pinwheel", "--out", "x.npz"], "labelled images"),
        (["digits", "--out", "x.npz", "--steps", "0"], "--steps must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_clear_line(argv, message):
    with pytest.raises(UserError, match=message):
        classify.main(argv)
