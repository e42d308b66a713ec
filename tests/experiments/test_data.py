"""Batches as a function of (seed, step), binarisation, names."""

import subprocess
import sys

import chex
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits

from experiments import data
from experiments.data import binary
from experiments.data.records import hold_out
from experiments.errors import UserError


def _numbered(num_rows: int = 10) -> data.Dataset:
    """A data set whose examples are the numbers of their rows."""
    rows = data.Split(np.arange(num_rows, dtype=np.uint8)[:, None], np.arange(num_rows, dtype=np.int32))
    return data.Dataset("numbered", rows, rows, rows, 256, num_rows, "made here")


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
def test_each_example_comes_once_an_epoch(batch_size):
    """Oracle: counting, also where batches span epochs."""
    dataset, epochs = _numbered(), 6
    steps = 10 * epochs // batch_size
    seen = np.concatenate([data.batch(dataset, 5, step, batch_size).x[:, 0] for step in range(steps)])
    for epoch in seen.reshape(epochs, 10):
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(seen[:10], seen[10:20])


def test_labels_stay_with_their_examples():
    for step in range(7):
        batch = data.batch(_numbered(), 0, step, 3)
        np.testing.assert_array_equal(batch.x[:, 0], batch.cond)


@pytest.mark.parametrize("name", ["digits", "digits_binary"])
def test_a_batch_does_not_depend_on_the_order_of_calls(name):
    """Bit-exact resume: a fresh process that starts at step k gets what an uninterrupted one got there."""
    dataset = data.load(name)
    forwards = [data.batch(dataset, 3, step, 700) for step in range(9)]
    again = data.load(name)
    for step in reversed(range(9)):
        chex.assert_trees_all_equal(data.batch(again, 3, step, 700), forwards[step])


def test_another_process_gets_the_same_bits():
    """Neither the order nor the noise depends on hashing or on what ran before."""
    code = (
        "from experiments import data;"
        "batch = data.batch(data.load('digits_binary'), 1, 11, 64);"
        "print(batch.x.tobytes().hex(), batch.cond.tobytes().hex())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    batch = data.batch(data.load("digits_binary"), 1, 11, 64)
    assert printed == [batch.x.tobytes().hex(), batch.cond.tobytes().hex()]


def test_seeds_differ():
    dataset = data.load("digits")
    first, second = (data.batch(dataset, seed, 0, 1200).x for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_dynamic_binarisation_has_the_mean_of_the_pixels():
    """Oracle: the binomial distribution of the number of ones over 400 visits, for every pixel of every example."""
    grey = data.load("digits").train.x
    dataset, visits = data.load("digits_binary"), 400
    total = np.zeros(grey.shape)
    for epoch in range(visits):
        rows = data.feed._permutation(len(grey), 0, epoch)
        batch = data.batch(dataset, 0, epoch, len(grey)).x
        assert batch.max() <= 1
        total[rows] += batch
    certain = (grey == 0) | (grey == 16)
    np.testing.assert_array_equal(total[certain], grey[certain] / 16 * visits)
    p = grey[~certain] / 16
    z = (total[~certain] - visits * p) / np.sqrt(visits * p * (1 - p))
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / z.size)


def test_bernoulli_levels_are_exact():
    """Oracle: binomial test of each of the 256 levels."""
    grey = np.repeat(np.arange(256, dtype=np.uint8), 20000)
    ones = binary.bernoulli(np.random.default_rng(0), grey, 255).reshape(256, -1).sum(1)
    p_values = [stats.binomtest(int(k), 20000, level / 255).pvalue for level, k in enumerate(ones)]
    assert min(p_values) > 1e-3 / 256
    assert ones[0] == 0
    assert ones[255] == 20000


def test_dynamic_parts_are_legal_and_fixed():
    first, second = data.load("digits_binary"), data.load("digits_binary")
    for part in ("train", "valid", "test"):
        assert set(np.unique(getattr(first, part).x)) == {0, 1}
        chex.assert_trees_all_equal(getattr(first, part), getattr(second, part))
    assert first.num_levels == 2


def test_digits_are_scikit_learns():
    """First 1300 rows train and valid, the rest test, values untouched."""
    images, labels = load_digits(return_X_y=True)
    dataset = data.load("digits")
    parts = [dataset.train, dataset.valid, dataset.test]
    assert [len(part.x) for part in parts] == [1200, 100, 497]
    np.testing.assert_array_equal(np.concatenate([part.x for part in parts]).reshape(-1, 64), images)
    np.testing.assert_array_equal(np.concatenate([part.cond for part in parts]), labels)
    assert (dataset.num_levels, dataset.num_classes) == (17, 10)
    assert dataset.train.x.dtype == np.uint8
    assert dataset.train.cond.dtype == np.int32
    np.testing.assert_array_equal(data.load("digits_threshold").test.x, dataset.test.x / 16 > 0.5)


def test_eval_batches_go_through_in_order_with_a_short_last_one():
    split = _numbered().test
    batches = list(data.eval_batches(split, 4))
    assert [len(batch.x) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([batch.x for batch in batches]), split.x)
    np.testing.assert_array_equal(np.concatenate([batch.cond for batch in batches]), split.cond)
    assert next(data.eval_batches(data.Split(split.x, None), 4)).cond is None


@pytest.mark.parametrize("batch_size", [-1, 0, 11])
def test_batch_size_out_of_range(batch_size):
    with pytest.raises(UserError, match=f"from 1 to the 10 .*got {batch_size}"):
        data.batch(_numbered(), 0, 0, batch_size)


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (0, -1)])
def test_negative_seed_or_step(seed, step):
    with pytest.raises(UserError, match="at least 0"):
        data.batch(_numbered(), seed, step, 2)


def test_eval_batch_size_out_of_range():
    with pytest.raises(UserError, match="at least 1, got 0"):
        data.eval_batches(_numbered().test, 0)


@pytest.mark.parametrize("num", [0, 10])
def test_hold_out_leaves_rows_on_both_sides(num):
    with pytest.raises(UserError, match=f"cannot hold out {num} of 10"):
        hold_out(_numbered().test, num)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'mnits' \(did you mean mnist\?\): expected digits, .*toy_rings.*tfds:NAME"):
        data.load("mnits")


def test_every_name_is_described_in_one_line():
    described = data.describe()
    assert set(described) == {*data.names(), "tfds:NAME"}
    assert all(text and "\n" not in text for text in described.values())


def test_import_is_light():
    """Nothing heavy imported, no device started."""
    code = (
        "import sys, experiments.data; from jax._src import xla_bridge;"
        "print([m for m in ('sklearn', 'tensorflow_datasets', 'matplotlib', 'PIL') if m in sys.modules],"
        "dict(xla_bridge._backends))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[] {}\n"
