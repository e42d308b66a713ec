"""A run teaches another: its averaged parameters arrive, unchanged, and a run that does not fit is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import checkpoints, configs, data, runs, teachers, train, trained
from experiments.errors import UserError
from jaxgen.types import Batch

SIZES = ["--channels", "4", "--levels", "1", "--batch-size", "8", "--parallel", "jit"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    directory = tmp_path_factory.mktemp("teacher") / "diffusion"
    assert train.main(["diffusion_digits", "--workdir", str(directory), "--steps", "2", *SIZES]) == 0
    return directory


@pytest.fixture(scope="module")
def angled(tmp_path_factory):
    """A diffusion told the angle, as sCM is, whose few steps move it well away from its first parameters."""
    directory = tmp_path_factory.mktemp("teacher") / "angled"
    flags = ["--parametrization", "trigflow", "--steps", "5", "--ema-decay", "0.5", "--learning-rate", "1e-2"]
    assert train.main(["diffusion_digits", "--workdir", str(directory), *flags, *SIZES]) == 0
    return directory


def test_the_teachers_parameters_arrive_and_stay(teacher, tmp_path):
    """They lie in the carry, as they were, also after a step; the student has moved away from them."""
    argv = ["consistency_digits", "--workdir", str(tmp_path), "--teacher", str(teacher), "--steps", "1", *SIZES]
    assert train.main(argv) == 0
    state = checkpoints.restore_latest(runs.open_run(tmp_path))
    expected = trained.open_trained(str(teacher)).params
    jax.tree.map(np.testing.assert_array_equal, state.carry["teacher"], expected)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, expected)
    assert 0 < max(jax.tree.leaves(moved)) < 1e-3


def test_tuning_starts_from_the_parameters_and_has_no_teacher(teacher, tmp_path):
    argv = ["consistency_digits", "--workdir", str(tmp_path), "--start", str(teacher), "--steps", "1", *SIZES]
    assert train.main(argv) == 0
    state = checkpoints.restore_latest(runs.open_run(tmp_path))
    assert set(state.carry) == {"step"}
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max()), state.params, trained.open_trained(str(teacher)).params
    )
    assert 0 < max(jax.tree.leaves(moved)) < 1e-3


def test_reflow_starts_from_its_teacher_and_keeps_it(tmp_path):
    """Its bound, which would hold for independent noise, is gone; the likelihood of its flow is not."""
    first, second = tmp_path / "first", tmp_path / "second"
    argv = ["flow_matching_digits", *SIZES, "--steps", "1", "--workdir"]
    assert train.main([*argv, str(first)]) == 0
    with pytest.raises(UserError, match="--teacher-steps must be at least 1, got 0"):
        train.main([*argv, str(second), "--teacher", str(first), "--teacher-steps", "0"])
    assert train.main([*argv, str(second), "--teacher", str(first), "--teacher_steps", "1"]) == 0
    run = runs.open_run(second)
    state, expected = checkpoints.restore_latest(run), trained.open_trained(str(first)).params
    jax.tree.map(np.testing.assert_array_equal, state.carry["teacher"], expected)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, expected)
    assert 0 < max(jax.tree.leaves(moved)) < 2e-3
    assert run.experiment.model.elbo is None
    assert run.experiment.likelihood.elbo is not None


def test_a_teacher_and_a_start_exclude_each_other(teacher, tmp_path):
    argv = ["consistency_digits", "--workdir", str(tmp_path / "run"), "--teacher", str(teacher), *SIZES]
    with pytest.raises(UserError, match="--teacher and --start exclude each other"):
        train.main([*argv, "--start", str(teacher)])
    with pytest.raises(UserError, match="--num-stages must be at least 1, got 0"):
        train.main([*argv, "--num-stages", "0"])
    with pytest.raises(UserError, match="nowhere is not a run directory"):
        train.main(["consistency_digits", "--workdir", str(tmp_path / "run"), "--start", "nowhere", *SIZES])


@pytest.mark.parametrize(
    ("student", "of", "at"), [("continuous_consistency", "teacher", "net"), ("consistency", "angled", "")]
)
def test_a_student_of_another_view_has_its_own_parameters(student, of, at, request, tmp_path):
    """One network is told an angle and the other is not, so that only the carry holds the teacher's parameters."""
    directory = str(request.getfixturevalue(of))
    argv = [f"{student}_digits", "--workdir", str(tmp_path), "--teacher", directory, "--seed", "1"]
    assert train.main([*argv, "--steps", "1", *SIZES]) == 0
    state = checkpoints.restore_latest(runs.open_run(tmp_path))
    expected = trained.open_trained(directory).params
    jax.tree.map(np.testing.assert_array_equal, state.carry["teacher"], expected)
    own = state.params[at] if at else state.params
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), own, expected)
    assert max(jax.tree.leaves(moved)) > 0.1


@pytest.mark.parametrize("flag", ["--teacher", "--start"])
def test_a_student_of_the_same_view_starts_as_one_step_of_its_teacher(angled, tmp_path, flag):
    """Step size 0: what it decodes is the teacher's denoised noise, one step of DDIM, to a level of a pixel."""
    argv = ["continuous_consistency_digits", "--workdir", str(tmp_path), flag, str(angled), "--seed", "1"]
    assert train.main([*argv, "--steps", "1", "--learning-rate", "0", *SIZES]) == 0
    student = trained.open_trained(str(tmp_path))
    one_step = trained.open_trained(str(angled), changes=["num_evaluations=1", "encoder=ddim"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), student.params["net"], one_step.params)
    carried = {"step", "teacher"} if flag == "--teacher" else {"step"}
    assert set(checkpoints.restore_latest(student.run).carry) == carried
    latent, labels = jax.random.normal(jax.random.key(1), (10, *student.run.dataset.train.x.shape[1:])), jnp.arange(10)
    decoded, expected = (of.run.experiment.model.decode(of.params, latent, labels) for of in (student, one_step))
    assert np.std(expected) > 1
    np.testing.assert_allclose(decoded, expected, atol=1)
    assert np.mean(decoded != expected) < 0.05


def test_views_are_not_mistaken_for_each_other(teacher, angled, tmp_path):
    """Their parameters have the same shapes, so that nothing else would notice."""
    argv = ["continuous_consistency_digits", "--workdir", str(tmp_path / "run"), *SIZES]
    with pytest.raises(UserError, match="has parametrization='v': expected a run with parametrization='trigflow'"):
        train.main([*argv, "--start", str(teacher)])
    with pytest.raises(UserError, match="--teacher and --start exclude each other"):
        train.main([*argv, "--start", str(angled), "--teacher", str(angled)])
    argv[0] = "consistency_digits"
    with pytest.raises(UserError, match="has parametrization='trigflow': expected a run with parametrization='v'"):
        train.main([*argv, "--start", str(angled)])
    with pytest.raises(UserError, match="--parametrization must be one of v, trigflow, got 'score'"):
        train.main(["diffusion_digits", "--parametrization", "score", "--workdir", str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--channels", "8"], "has channels=4: give this run the same, it has 8"),
        (["--data", "digits_threshold"], "has data='digits': give"),
        (["--teacher", "nowhere"], "nowhere is not a run directory"),
        (["--teacher-sampler", "ddpm"], "--teacher-sampler must be one of ddim, euler, heun, .*, got 'ddpm'"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(teacher, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        train.main(
            ["consistency_digits", "--workdir", str(tmp_path / "run"), "--teacher", str(teacher), *SIZES, *flags]
        )
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    """A diffusion whose labels have one more among them, which stands for none."""
    directory = tmp_path_factory.mktemp("teacher") / "guided"
    argv = ["diffusion_digits", "--workdir", str(directory), "--steps", "1", "--condition-dropout", "0.5"]
    assert train.main([*argv, *SIZES]) == 0
    return directory


@pytest.mark.parametrize("flag", ["--teacher", "--start"])
@pytest.mark.parametrize("student", ["consistency_digits", "continuous_consistency_digits"])
def test_a_teacher_with_a_label_for_none_is_refused(guided, tmp_path, student, flag):
    argv = [student, "--workdir", str(tmp_path / "run"), flag, str(guided), *SIZES]
    with pytest.raises(UserError, match=r"guided has condition_dropout=0.5: expected .* condition_dropout=0.0$"):
        train.main(argv)
    assert not (tmp_path / "run").exists()


def test_stored_parameters_of_another_shape_cannot_teach(guided, teacher):
    """Whatever the configs say, the arrays of the checkpoint must fit those of the student's first state."""
    state = checkpoints.restore_latest(runs.open_run(teacher))
    with pytest.raises(UserError, match=r"guided cannot teach this one: .*: expected float32\(10, .*got float32\(11, "):
        teachers.started(str(guided))(state)


def test_a_run_of_another_config_is_no_teacher(plain_run, tmp_path):
    with pytest.raises(UserError, match="is a run of known_digits: expected one of diffusion"):
        train.main(["consistency_digits", "--workdir", str(tmp_path / "run"), "--teacher", str(plain_run)])


@pytest.mark.parametrize(
    ("name", "of", "fields"),
    [
        ("consistency_digits", "diffusion_digits", {}),
        ("continuous_consistency_digits", "diffusion_digits", {}),
        ("flow_matching_digits", "flow_matching_digits", {}),
        ("flow_matching_digits", "flow_matching_digits", {"dequantization": "variational"}),
    ],
)
def test_a_teacher_has_no_noise_of_its_own(tmp_path, name, of, fields):
    """Its parameters would not be those of the network alone."""
    runs.claim(tmp_path, of, configs.load(of).Config(dequantization="variational"))
    config = configs.load(name).Config(teacher=str(tmp_path), **fields)
    with pytest.raises(UserError, match="has dequantization='variational': expected a run with dequantization='unif"):
        configs.load(name).build(config, data.load(config.data))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher": "reflow", "dequantization": "variational"}, "--teacher excludes --dequantization variational, wh"),
        (
            {"coupling": "transport", "dequantization": "variational"},
            "--coupling transport excludes --dequantization v",
        ),
        ({"teacher": "reflow", "coupling": "transport"}, "--teacher makes pairs of its own and excludes --coupling tr"),
        ({"coupling": "sinkhorn"}, "--coupling must be one of independent, transport, got 'sinkhorn'"),
    ],
)
def test_pairs_that_exclude_each_other_are_named(tmp_path, fields, message):
    """The variational bound holds for independent pairs, so that there is none to learn noise from."""
    module = configs.load("flow_matching_digits")
    runs.claim(tmp_path, "flow_matching_digits", module.Config())
    if "teacher" in fields:
        fields = {**fields, "teacher": str(tmp_path)}
    with pytest.raises(UserError, match=message):
        module.build(module.Config(**fields), data.load("digits"))


def test_noise_is_transported_among_images_of_a_digit():
    """The untrained network's velocity is 0, so that the loss is what pairs move: less within digits, or the same."""
    module, dataset, key = configs.load("flow_matching_digits"), data.load("digits"), jax.random.key(0)
    couplings, images = ("independent", "transport"), jnp.asarray(dataset.train.x[:8])
    models = {c: module.build(module.Config(coupling=c, channels=4, levels=1), dataset).model for c in couplings}
    params, carry = models["independent"].init(key, Batch(images, jnp.arange(8)))
    losses = {
        c: jax.jit(lambda label, m=model: m.loss(params, carry, key, Batch(images, label))[0])
        for c, model in models.items()
    }
    each_its_own, one = jnp.arange(8), jnp.zeros(8, jnp.int32)
    np.testing.assert_allclose(losses["transport"](each_its_own), losses["independent"](each_its_own), rtol=1e-6)
    assert losses["transport"](one) < 0.99 * losses["independent"](one)
    assert models["independent"].elbo is not None
    assert models["transport"].elbo is None


def test_steps_of_tuning_fall_to_nothing(teacher):
    """Those of a training on data alone do not: updates of Adam for the same gradient, after all of the steps."""
    module, dataset, last = configs.load("consistency_digits"), data.load("digits"), {}
    for start in ("", str(teacher)):
        config = module.Config(start=start, steps=3, channels=4, levels=1)
        tx, gradient = module.build(config, dataset).tx, {"weight": jnp.ones(2)}
        state = tx.init(gradient)
        for _ in range(4):
            last[start], state = tx.update(gradient, state, gradient)
    assert abs(last[""]["weight"]).min() > 1e-4
    np.testing.assert_array_equal(last[str(teacher)]["weight"], 0)
