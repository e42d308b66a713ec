"""The train command against a plain loop over `core.train_step`, and against itself: resumed, elsewhere, diverged."""

import itertools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments import checkpoints, data, devices, loop, metrics_log, runs, train
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.progress import Interrupts
from jaxgen import core, parallel
from jaxgen.models.energy.rbm import rbm
from jaxgen.transforms import pull_back

COMMAND = ["ppca_digits", "--batch-size", "16", "--num-latents", "3", "--ema-decay", "0.9"]


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    """Compiles every program once for this file, and leaves the user's compilation cache alone."""
    options = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache"))}
    options |= {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": -1}
    before = {name: getattr(jax.config, name) for name in options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "setup", lambda: None)
        for name, value in options.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def _train(workdir, *flags, parallel="jit"):
    return train.main([*COMMAND, "--workdir", str(workdir), "--parallel", parallel, *map(str, flags)])


def _latest(workdir):
    return checkpoints.restore_latest(runs.open_run(workdir))


def _params(workdir, step):
    return jax.tree.leaves(checkpoints.restore(runs.open_run(workdir), step).state.params)


def _leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))]


def _same_bits(one, other):
    leaves = zip(_leaves(one), _leaves(other), strict=True)
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in leaves)


def _plain_losses(workdir, count):
    """Losses of the first steps, by the plain loop that the command must be equal to; and the state after them."""
    run = runs.open_run(workdir)
    model, tx, config = run.experiment.model, run.experiment.tx, run.config
    batches = [jax.device_put(data.batch(run.dataset, config.seed, step, config.batch_size)) for step in range(count)]
    state = jax.jit(lambda key, batch: core.init_state(model, tx, key, batch))(jax.random.key(config.seed), batches[0])
    step, losses = jax.jit(core.train_step(model, tx, ema_decay=config.ema_decay)), []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return losses, state


def _files(workdir):
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 20 steps that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert _train(workdir, "--steps", 20, "--log-every", 4, "--checkpoint-every", 5, "--keep", 9) == 0
    return workdir


def test_trains_as_the_plain_loop_and_logs_the_mean_of_each_window(whole):
    losses, state = _plain_losses(whole, 20)
    records = metrics_log.read_metrics(whole)
    assert [record["step"] for record in records] == [4, 5, 8, 10, 12, 15, 16, 20]
    for before, record in zip([0, *(r["step"] for r in records)], records, strict=False):
        np.testing.assert_allclose(record["loss"], np.mean(losses[before : record["step"]]), rtol=1e-4)
        assert record["steps_per_second"] > 0
    for one, other in zip(_leaves(_latest(whole)), _leaves(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


class StopsAt(Interrupts):
    """As if somebody pressed Ctrl-C during a step."""

    step, steps = 0, 0

    @property
    def asked(self):
        StopsAt.steps += 1
        return StopsAt.steps >= StopsAt.step

    @asked.setter
    def asked(self, value):
        StopsAt.steps = 0


def _interrupted(monkeypatch, step, *args, **options):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "Interrupts", StopsAt)
        patch.setattr(StopsAt, "step", step)
        return _train(*args, **options)


def test_a_resumed_run_has_the_bits_of_the_whole_one(whole, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    flags = ["--steps", 20, "--log-every", 4, "--checkpoint-every", 5]
    assert _interrupted(monkeypatch, 7, run, *flags) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert "stopped at step 7 of 20 and saved" in said
    assert f"python -m experiments.train {' '.join(COMMAND)} --workdir {run} --parallel jit --steps 20" in said
    assert _train(run, *flags) == 0
    assert _same_bits(_latest(run), _latest(whole))
    records = {path: {r["step"]: r for r in metrics_log.read_metrics(path)} for path in (run, whole)}
    assert list(records[run]) == [4, 5, 7, 8, 10, 12, 15, 16, 20]
    assert records[run][20]["valid_loss"] == records[whole][20]["valid_loss"]


def test_more_steps_go_on(tmp_path):
    run = tmp_path / "run"
    assert _train(run, "--steps", 2) == 0
    assert _train(run, "--steps", 3) == 0
    assert runs.open_run(run).config.steps == 3
    assert [record["step"] for record in metrics_log.read_metrics(run)] == [2, 3]


def test_metrics_after_the_restored_step_are_cut(whole, tmp_path, monkeypatch):
    """A run that was killed after it logged step 8, in the middle of the next line."""
    run = tmp_path / "run"
    flags = ["--steps", 20, "--log-every", 4, "--checkpoint-every", 5]
    assert _interrupted(monkeypatch, 5, run, *flags) == 130
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 8, "loss": 123.0}) + '\n{"step": 10, "lo')
    assert _train(run, *flags) == 0
    untimed = [
        [(r["step"], r["loss"], r.get("valid_loss")) for r in metrics_log.read_metrics(path)] for path in (run, whole)
    ]
    assert untimed[0] == untimed[1]


def test_the_same_command_again_does_nothing_more(whole, capsys):
    before = _files(whole)
    assert _train(whole, "--steps", 20, "--log-every", 4, "--checkpoint-every", 5, "--keep", 9) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert _files(whole) == before


def test_valid_loss_is_the_loss_on_the_validation_part(whole):
    """PPCA: the mean negative log-density of the dequantised validation images, here with other noise."""
    run = runs.open_run(whole)
    state = _latest(whole)
    x = jnp.asarray(run.dataset.valid.x[: 8 * 16])
    log_p = run.experiment.model.elbo(state.ema_params, jax.random.key(5), x) + 64 * jnp.log(run.dataset.num_levels)
    record = metrics_log.read_metrics(whole)[-1]
    np.testing.assert_allclose(record["valid_loss"], -log_p.mean(), rtol=0.02)


def test_tensorboard_has_the_same_numbers(whole):
    from tensorboardX.proto import event_pb2

    (path,) = (whole / "tensorboard").iterdir()
    values, content = {}, path.read_bytes()
    while content:  # TFRecord: length, checksum of it, content, checksum
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            if value.tag == "loss":
                values[event.step] = value.simple_value
        content = content[16 + length :]
    assert values == {r["step"]: np.float32(r["loss"]) for r in metrics_log.read_metrics(whole)}


def _spoiled(model, step):
    """The same model, but the loss of one step is not a number; parameters and gradients stay finite."""

    def loss(params, carry, key, batch):
        value, (_, metrics) = model.loss(params, (), key, batch)
        return jnp.where(carry == step - 1, jnp.nan, value), (carry + 1, metrics)

    return model._replace(init=lambda key, batch: (model.init(key, batch)[0], jnp.int32(0)), loss=loss)


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(tmp_path, capsys):
    """Step 7 lies inside a window of metrics; what was saved before it stays, also when it is tried again."""
    config = runs.configs.load("ppca_digits").Config(batch_size=16, num_latents=3, checkpoint_every=2, keep=9)
    run = runs.build(tmp_path / "run", "ppca_digits", config)
    run = run._replace(experiment=run.experiment._replace(model=_spoiled(run.experiment.model, 7)))
    for _ in range(2):
        with loop.owned(run):
            assert loop.train(run, parallel.single(), parallel="jit", again="again") == 1
        lines = capsys.readouterr().err.splitlines()
        assert "the loss is nan at step 7; the last good checkpoint is step 6" in lines[-2]
        assert "--learning-rate below" in lines[-1]
        assert checkpoints.steps(run.directory) == [2, 4, 6]
        before = _files(run.directory / "checkpoints")
    assert _files(run.directory / "checkpoints") == before
    assert metrics_log.read_metrics(run.directory)[-1]["step"] == 6


def test_a_learning_rate_that_is_too_large_stops_the_run(tmp_path, capsys):
    """The step that the message names is the first of the plain loop with such a loss."""
    run = tmp_path / "run"
    assert _train(run, "--steps", 100, "--learning-rate", 45) == 1
    lines = capsys.readouterr().err.splitlines()
    losses, _ = _plain_losses(run, 4)
    first = 1 + int(np.flatnonzero(~np.isfinite(losses))[0])
    assert f"at step {first}; there is no checkpoint yet" in lines[-2]
    assert checkpoints.steps(run) == []


def test_a_parameter_that_is_not_finite_is_not_saved(tmp_path, capsys):
    """The loss of step 1 is computed before the update that spoils the parameters."""
    run = tmp_path / "run"
    assert _train(run, "--steps", 100, "--learning-rate", 1e38, "--checkpoint-every", 1) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "step" in lines[-2]
    assert all(np.isfinite(leaf).all() for step in checkpoints.steps(run) for leaf in _params(run, step))


@pytest.mark.parametrize(("first", "then"), [("jit", "pmap"), ("pmap", "mesh"), ("mesh", "jit")])
def test_resumes_under_another_placement_and_says_so(first, then, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert _interrupted(monkeypatch, 2, run, "--steps", 20, parallel=first) == 130
    assert "warning" not in capsys.readouterr().err
    assert _train(run, "--steps", 20, parallel=then) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert f"parallel ({first!r}, now {then!r})" in warnings[0]
    assert runs.read_json(run / "environment.json")["resumed"][0]["step"] == 2
    assert int(_latest(run).step) == 20


def test_a_checkpoint_of_8_devices_restores_on_1_2_and_4_and_back(tmp_path):
    """Every bit, chains included."""
    dataset = data.load("digits_threshold")
    shape = dataset.train.x.shape[1:]
    from jaxgen.bijections import reshape

    model, tx = pull_back(rbm(64, 4, num_chains=8), reshape(shape, (64,))), optax.adam(1e-3)
    config = runs.configs.load("ppca_digits").Config(batch_size=16)
    run = runs.Run(tmp_path, "ppca_digits", config, Experiment(model, tx), dataset)
    batch = data.batch(dataset, 0, 0, 16)

    def placements(count):
        some = jax.devices()[:count]
        return [parallel.pmap(some), parallel.mesh(some)]

    start = parallel.single().init_state(model, tx, jax.random.key(0), batch)
    start = parallel.single().get_state(model, start)
    for placement in [*placements(8), parallel.single()]:
        step = placement.train_step(model, tx)
        saved = placement.get_state(model, step(placement.put_state(model, start), placement.put_batch(batch))[0])
        checkpoints.save(run, saved)
        restored = checkpoints.restore_latest(run)
        assert restored.carry.shape == (8, 64)
        for other in itertools.chain([parallel.single()], *map(placements, (1, 2, 4, 8))):
            assert _same_bits(other.get_state(model, other.put_state(model, restored)), saved)


def test_a_second_process_is_kept_out(whole):
    with runs.locked(whole), pytest.raises(UserError, match="another process is training"):
        _train(whole, "--steps", 30)


@pytest.fixture
def interruptible():
    """Python's own handler, also where the tests run in the background and are deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_first_interrupt_asks_and_the_second_stops():
    with Interrupts() as interrupts:
        assert not interrupts.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
