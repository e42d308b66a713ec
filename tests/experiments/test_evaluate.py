import json
import types

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from experiments import configs, data, evaluate, features, measures, runs, trained
from experiments.data import Split
from experiments.errors import UserError
from jaxgen import parallel


@pytest.fixture(scope="module")
def evaluation(conditional_run):
    argv = [str(conditional_run), "--parallel", "jit", "--num", "all", "--importance-samples", "2"]
    assert evaluate.main(argv) == 0
    return json.loads((conditional_run / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def log_probs(conditional_run):
    """ln N(x; mean of its class, e^2 I) of every test example, by scipy in float64."""
    opened = trained.open_trained(str(conditional_run))
    test = opened.run.dataset.test
    mean = np.asarray(opened.params["mean"], float)[test.cond]
    return stats.norm.logpdf(test.x.astype(float), mean, np.e).sum((1, 2, 3))


def row(evaluation, name, unit):
    (found,) = [row for row in evaluation["rows"] if (row["name"], row["unit"]) == (name, unit)]
    return found


def test_exact_likelihood_in_nats_and_bits_per_dimension(evaluation, log_probs):
    nats = row(evaluation, "log-likelihood", "nats per image")
    np.testing.assert_allclose(nats["value"], log_probs.mean(), rtol=1e-5)
    np.testing.assert_allclose(nats["error"], stats.sem(log_probs), rtol=1e-4)
    bits = row(evaluation, "log-likelihood", "bits/dim")
    np.testing.assert_allclose(bits["value"], -log_probs.mean() / 64 / np.log(2), rtol=1e-5)
    np.testing.assert_allclose(bits["error"], stats.sem(log_probs) / 64 / np.log(2), rtol=1e-4)
    assert (nats["better"], bits["better"]) == ("higher", "lower")
    assert nats["protocol"].startswith("exact, given the label; all 497 test examples; levels 0..16;")


def test_bounds_state_what_they_are(evaluation, log_probs):
    """The known bound is 3 nats too low; the known weights are 1.8 p or 0.2 p, B ~ Bin(2, 1/2) of 2 the former."""
    low = row(evaluation, "log-likelihood, lower bound", "nats per image")
    np.testing.assert_allclose(low["value"], log_probs.mean() - 3, rtol=1e-5)
    assert low["protocol"].startswith("lower bound, 1 draw per example")
    weighted = row(evaluation, "log-likelihood, importance-weighted bound", "nats per image")
    assert "importance weighted, k = 2" in weighted["protocol"]
    counts = np.arange(3)
    gaps, chances = np.log((1.8 * counts + 0.2 * (2 - counts)) / 2), stats.binom.pmf(counts, 2, 0.5)
    gap = (chances * gaps).sum()
    spread = np.sqrt((chances * (gaps - gap) ** 2).sum() / len(log_probs))
    assert abs(weighted["value"] - log_probs.mean() - gap) < 4 * spread
    assert 4 * spread < abs(gap)


def test_reconstruction_and_the_experiments_own_number(evaluation):
    """The known decoder is off by 2 of 16 levels everywhere."""
    found = row(evaluation, "reconstruction error", "per dimension")
    np.testing.assert_allclose(found["value"], (2 / 16) ** 2, rtol=1e-5)
    own = row(evaluation, "something of its own", "nats")
    assert (own["value"], own["error"]) == (1.5, 0.25)
    assert own["protocol"].startswith("half width, made up; whole test part; levels")


def test_distances_of_samples_stand_beside_those_of_training_data(evaluation):
    names = [row["name"] for row in evaluation["rows"] if row["floor"] is not None]
    assert names[0] == "pixel-PCA Frechet distance"
    assert len(names) == 5
    assert not any("FID" in json.dumps(row) for row in evaluation["rows"])
    for name in names:
        found = row(evaluation, name, "")
        assert found["floor_error"] > 0
        better = found["value"] - found["floor"] if found["better"] == "higher" else found["floor"] - found["value"]
        assert better < 0, name
        assert "497 samples given the labels of as many training examples" in found["protocol"]


def test_some_parts_go_to_a_file_of_their_own(evaluation, conditional_run, capsys):
    argv = [str(conditional_run), "--parallel", "jit", "--num", "all", "--importance-samples", "2"]
    assert evaluate.main([*argv, "--parts", "likelihood", "something of its own"]) == 0
    out, err = capsys.readouterr()
    path = conditional_run / "evaluation_likelihood_something-of-its-own.json"
    assert out.splitlines()[-1] == str(path)
    assert "samples" not in err
    found = json.loads(path.read_text())
    assert found["rows"] == [row for row in evaluation["rows"] if row["floor"] is None and "recon" not in row["name"]]
    assert found["flags"]["parts"] == ["likelihood", "something of its own"]
    assert json.loads((conditional_run / "evaluation.json").read_text()) == evaluation


def test_features_are_scikit_learns_principal_components(plain_run):
    model = trained.open_trained(str(plain_run))
    space = features.principal_components(model.run.dataset)
    train, test = (part.x.reshape(-1, 64) / 16 for part in (model.run.dataset.train, model.run.dataset.test))
    expected = PCA(64, svd_solver="full").fit(train).transform(test)[:, :40]
    np.testing.assert_allclose(np.abs(space.apply(model.run.dataset.test.x))[:, :40], np.abs(expected), atol=1e-3)


def test_frechet_distance_of_a_set_from_itself_is_the_floor(plain_run):
    """A model that samples the very training examples of the floor scores the floor."""
    model = trained.open_trained(str(plain_run))
    dataset, rows = model.run.dataset, np.random.default_rng(0).permutation(1200)[:100]
    copies = parallel.single()._replace(sample=lambda model: lambda params, key, num, cond: dataset.train.x[rows])
    setting = measures.Setting(model, copies, Split(dataset.test.x[:100]), "some", 0, 1)
    for found in measures.sample_rows(setting):
        assert found.value == found.floor, found.name
        assert found.error == found.floor_error


def test_the_likelihood_model_states_its_protocol(plain_run):
    model = trained.open_trained(str(plain_run))
    experiment = model.run.experiment
    likelihood = experiment.model._replace(log_weight=None, elbo=None)
    bare = experiment.model._replace(log_prob=None, log_weight=None, elbo=None, encode=None)
    changed = experiment._replace(model=bare, likelihood=likelihood, likelihood_protocol="ODE, tolerance 1e-5")
    model = model._replace(run=model.run._replace(experiment=changed))
    setting = measures.Setting(model, parallel.single(), Split(model.run.dataset.test.x[:30]), "30 examples", 0, 1)
    nats, bits = measures.likelihood_rows(setting)
    assert nats.protocol.startswith("ODE, tolerance 1e-5; 30 examples; ")
    assert nats.unit == "nats per image"
    assert list(measures.reconstruction_rows(setting)) == []


@pytest.mark.parametrize("name", ["ppca_digits", "real_nvp_digits", "diffusion_digits"])
def test_rows_name_the_noise_of_dequantisation(name):
    """Of bounds, and of an exact likelihood without losing that it is; nothing is computed."""
    config = configs.load(name).Config()
    experiment = configs.load(name).build(config, data.load(config.data))
    bound = experiment.model._replace(log_prob=lambda *args: None)
    setting = types.SimpleNamespace(importance_samples=1)
    found = {how for _, how, _ in measures._bounds(bound, setting, "exact", experiment.protocol)}
    assert "exact, uniform dequantisation" in found
    assert all("uniform dequantisation" in how for how in found)


def test_numbers_that_are_not_finite_survive_json(plain_run, tmp_path):
    found = measures.Row("a", float("-inf"), float("nan"), "", "how", "protocol")
    runs.write_json(tmp_path / "a.json", {name: evaluate._plain(value) for name, value in found._asdict().items()})
    again = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert float(again["value"]) == float("-inf")
    assert "-inf" in evaluate.table([found], width=100)


def test_the_table_is_aligned():
    rows = [
        measures.Row("name", -83.1234, 0.0456, "nats", "how " * 30, "all"),
        measures.Row("b", 2.0, 0.0, "", "x", ""),
    ]
    lines = evaluate.table(rows, width=90).splitlines()
    assert "-83.123 ± 0.046" in lines[2]
    assert all(len(line) <= 90 for line in lines)
    starts = [line.index("how") for line in lines if "how" in line]
    assert len(starts) > 2
    assert set(starts) == {lines[0].index("protocol")}


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (-83.1234, 0.0456, ("-83.123", "0.046")),
        (1234.5, 67.8, ("1234", "68")),
        (1.0, 0.0, ("1", "")),
        (1.184e-10, 4.81e-11, ("1.18e-10", "4.8e-11")),
    ],
)
def test_as_many_digits_as_the_error_warrants(value, error, expected):
    assert evaluate.format_estimate(value, error) == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num", "5"], "--num must be at least 20, got 5"),
        (["--num", "few"], "--num must be a number or all, got 'few'"),
        (["--split", "held_out"], "--split"),
        (["--importance-samples", "0"], "--importance-samples must be at least 1"),
        (["--parts", "fid"], "'something of its own', 'reconstruction', 'samples against data', got 'fid'"),
    ],
)
def test_mistakes_are_one_line(plain_run, flags, message):
    with pytest.raises(UserError) as error:
        evaluate.main([str(plain_run), *flags])
    assert message in str(error.value)


def test_examples_are_drawn_at_random_and_that_is_said(plain_run):
    args = evaluate.parser().parse(
        [str(plain_run), "--num", "50", "--split", "train", "--seed", "4", "--parallel", "jit"]
    )
    chosen = evaluate.setting(args)
    assert chosen.which == "50 of 1200 train examples drawn with seed 4"
    train = chosen.model.run.dataset.train.x
    assert {image.tobytes() for image in chosen.examples.x} <= {image.tobytes() for image in train}
    assert not np.array_equal(chosen.examples.x, train[:50])
