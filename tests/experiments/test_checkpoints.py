"""Checkpoints: a change to any byte of any file is seen; what is kept; what does not fit is said."""

import dataclasses
import random
import shutil

import jax
import numpy as np
import pytest

from experiments import checkpoints, integrity, runs
from experiments.configs import ppca_digits
from experiments.errors import UserError
from jaxgen import core

CONFIG = ppca_digits.Config(batch_size=16, num_latents=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return runs.build(tmp_path_factory.mktemp("runs") / "run", "ppca_digits", CONFIG)


@pytest.fixture(scope="module")
def states(run):
    """States that differ in every leaf, at steps 1, 2, ..."""
    shapes = checkpoints.abstract_state(run)
    template = jax.jit(lambda key, x: core.init_state(run.experiment.model, run.experiment.tx, key, x))(
        jax.random.key(0), core.Batch(run.dataset.train.x[:16])
    )
    assert jax.tree.map(lambda leaf: leaf.shape, template) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    rng = np.random.default_rng(0)

    def state(step):
        raw = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), template._replace(key=()))
        return raw._replace(step=np.int32(step), key=jax.random.key(step))

    return [state(step) for step in range(1, 7)]


@pytest.fixture(scope="module")
def two(run, states):
    """A run directory with checkpoints 1 and 2, to be copied."""
    runs.claim(run.directory, run.config_name, run.config)
    for state in states[:2]:
        checkpoints.save(run, state, valid_loss=1.0)
    return run


@pytest.fixture
def copy(two, tmp_path):
    def make(name="copy"):
        shutil.copytree(two.directory, tmp_path / name)
        return two._replace(directory=tmp_path / name)

    return make


def _same(one, other):
    one, other = (tree._replace(key=jax.random.key_data(tree.key)) for tree in (one, other))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves)


def _newest_files(run):
    root = integrity.root(run.directory)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] == "2")
    return [*files, root / "2.sha256"]


def _falls_back(run, states, capsys):
    """The reader names checkpoint 2 in one line and gives the state of checkpoint 1, bit for bit."""
    state = checkpoints.restore_latest(run)
    lines = capsys.readouterr().err.splitlines()
    return len(lines) == 1 and "checkpoint 2" in lines[0] and _same(state, states[0])


def test_restores_every_bit(two, states, capsys):
    assert _same(checkpoints.restore_latest(two), states[1])
    assert _same(checkpoints.restore(two, 1).state, states[0])
    assert capsys.readouterr().err == ""


def test_sha256sum_agrees(two):
    """The oracle is coreutils' own program."""
    import subprocess

    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    root = integrity.root(two.directory)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "2.sha256"], cwd=root, check=True)


def test_one_flipped_bit_in_any_file_falls_back(copy, states, capsys):
    """One bit at a random place of each file, the empty ones aside."""
    run, chance = copy(), random.Random(3)
    files = [path for path in _newest_files(run) if path.stat().st_size]
    assert len(files) > 8
    for path in files:
        whole = path.read_bytes()
        for _ in range(2):
            place, bit = chance.randrange(len(whole)), chance.randrange(8)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert _falls_back(run, states, capsys), f"bit {bit} of byte {place} of {path}"
        path.write_bytes(whole)
    assert _same(checkpoints.restore_latest(run), states[1])


def test_any_truncated_or_missing_file_falls_back(copy, states, capsys):
    run = copy()
    for path in _newest_files(run):
        whole = path.read_bytes()
        for length in {0, len(whole) // 2, len(whole) - 1} - {len(whole), -1}:
            path.write_bytes(whole[:length])
            assert _falls_back(run, states, capsys), f"{path} cut to {length}"
        path.unlink()
        if path.suffix == ".sha256":  # then it never was a checkpoint
            assert checkpoints.steps(run.directory) == [1]
        else:
            assert _falls_back(run, states, capsys), f"{path} missing"
        path.write_bytes(whole)


def test_training_moves_a_damaged_checkpoint_aside_and_loses_nothing(copy, capsys):
    run = copy()
    path = _newest_files(run)[0]
    path.write_bytes(b"x" + path.read_bytes()[1:])
    checkpoints.clean(run.directory)
    line = capsys.readouterr().err.splitlines()
    assert len(line) == 1
    assert "checkpoint 2" in line[0]
    assert path.name in line[0]
    assert checkpoints.steps(run.directory) == [1]
    assert {file.name for file in (integrity.root(run.directory) / "damaged").iterdir()} == {"2", "2.sha256"}


def test_nothing_whole_is_an_error_and_touches_nothing(copy):
    run = copy()
    for step in (1, 2):
        (integrity.root(run.directory) / str(step) / "meta.json").write_text("{}")
    with pytest.raises(UserError, match="checkpoint 2 .*none before"):
        checkpoints.clean(run.directory)
    with pytest.raises(UserError, match="no checkpoint that can be restored"):
        checkpoints.restore_latest(run)
    assert checkpoints.steps(run.directory) == [1, 2]


def test_what_a_kill_leaves_behind_is_no_checkpoint(copy, capsys):
    """Half written by orbax; half removed; a half written digest; other people's files are left alone."""
    run = copy()
    root = integrity.root(run.directory)
    shutil.copytree(root / "2" / "state", root / "3.part" / "state.orbax-checkpoint-tmp")
    shutil.copytree(root / "2", root / "1.part")
    (root / "4.sha256.tmp").write_text("half")
    (root / "notes.txt").write_text("mine")
    assert checkpoints.steps(run.directory) == [1, 2]
    checkpoints.clean(run.directory)
    assert sorted(path.name for path in root.iterdir()) == ["1", "1.sha256", "2", "2.sha256", "notes.txt"]
    assert capsys.readouterr().err == ""


def test_files_without_their_digest_are_no_checkpoint_and_are_not_deleted(copy, capsys):
    run = copy()
    root = integrity.root(run.directory)
    (root / "2.sha256").unlink()
    assert checkpoints.steps(run.directory) == [1]
    checkpoints.clean(run.directory)
    assert "checkpoint 2" in capsys.readouterr().err
    assert (root / "damaged" / "2" / "meta.json").exists()


def test_a_cast_by_orbax_is_seen(copy, states, monkeypatch, capsys):
    """orbax gives another type than was saved without a word; the digest of each leaf sees what the files cannot."""
    run, orbax_restore = copy(), checkpoints._orbax_restore

    def cast(path, target):
        raw = orbax_restore(path, target)
        if path.parent.name != "2":
            return raw
        return raw._replace(params=jax.tree.map(lambda leaf: leaf.astype(np.float16), raw.params))

    monkeypatch.setattr(checkpoints, "_orbax_restore", cast)
    assert _falls_back(run, states, capsys)


def test_a_state_of_another_model_is_named_by_its_leaf(copy):
    run = copy()
    other = runs.build(run.directory, "ppca_digits", dataclasses.replace(CONFIG, num_latents=4))
    with pytest.raises(
        UserError, match=r"\['loadings'\] is float32 \[64, 3\] there and float32 \[64, 4\] in the model"
    ):
        checkpoints.restore_latest(other)


@pytest.mark.parametrize(
    ("losses", "kept"),
    [([3.0, 1.0, 2.0, 4.0, 5.0], [2, 4, 5]), ([5.0, 4.0, 3.0, 2.0, 1.0], [4, 5]), ([None, float("nan"), 9.0], [2, 3])],
)
def test_the_newest_and_the_best_are_kept(run, states, tmp_path, losses, kept):
    run = run._replace(directory=tmp_path)
    for state, loss in zip(states, losses, strict=False):
        checkpoints.save(run, state, valid_loss=loss)
    assert checkpoints.steps(tmp_path) == kept
    assert sorted(path.name for path in integrity.root(tmp_path).iterdir() if path.is_dir()) == [str(k) for k in kept]
    finite = {loss: step for step, loss in enumerate(losses, 1) if loss is not None and np.isfinite(loss)}
    assert checkpoints.best_step(tmp_path) == finite[min(finite)]


def test_any_types_and_trees_come_back(run, tmp_path, monkeypatch):
    """bfloat16, int8, a tree without leaves, and keys of another generator."""
    import jax.numpy as jnp

    carry = {"half": jnp.arange(3, dtype=jnp.bfloat16), "none": (), "chains": jnp.ones((4, 2), jnp.int8)}
    carry |= {"key": jax.random.key(3, impl="rbg")}
    state = core.TrainState(jnp.int32(1), {"w": jnp.float32(3)}, {"w": jnp.float32(3)}, (), carry, jax.random.key(1))
    monkeypatch.setattr(checkpoints, "abstract_state", lambda _: jax.eval_shape(lambda: state))
    checkpoints.save(run._replace(directory=tmp_path), state)
    back = checkpoints.restore_latest(run._replace(directory=tmp_path))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert jax.random.key_impl(back.carry["key"]) == jax.random.key_impl(carry["key"])
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(back), strict=True):
        assert one.dtype == other.dtype
        one, other = (jax.random.key_data(leaf) if "key" in str(leaf.dtype) else leaf for leaf in (one, other))
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
