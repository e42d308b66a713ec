"""Configs of few steps, of tokens and of a transformer: each traces from raw images to a loss and to raw images."""

import jax
import pytest

from experiments import configs, data, runs
from experiments.configs import d3pm_digits
from experiments.errors import UserError
from jaxgen import core
from jaxgen.types import Batch

KEY = jax.random.key(0)


@pytest.mark.parametrize("suffix", ["digits", "mnist"])
@pytest.mark.parametrize(
    "name", ["vdm", "d3pm", "shortcut", "continuous_consistency", "consistency", "mean_flow", "dit"]
)
def test_samples_are_images_of_the_data(name, suffix):
    """Traced only: one update, of the shapes of the state, and a sample like the examples."""
    module = configs.load(f"{name}_{suffix}")
    config = module.Config(**({"width": 8, "depth": 1} if name == "dit" else {"channels": 4, "levels": 1}))
    dataset = data.load("digits" if suffix == "digits" else "digits_threshold")
    model, tx = module.build(config, dataset)[:2]
    batch = Batch(dataset.train.x[:4], dataset.train.cond[:4] if config.conditional else None)
    before = jax.eval_shape(lambda key, batch: core.init_state(model, tx, key, batch), KEY, batch)
    after, metrics = jax.eval_shape(core.train_step(model, tx), before, batch)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), before
    )
    assert metrics["loss"].shape == ()
    sample = lambda params, key, cond: model.sample(params, key, 4, cond)  # noqa: E731
    x = jax.eval_shape(sample, before.params, KEY, batch.cond)
    assert (x.shape, x.dtype) == (batch.x.shape, batch.x.dtype)


def test_a_chain_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="--chain must be one of absorbing, uniform, gaussian, got 'cosine'"):
        d3pm_digits.build(d3pm_digits.Config(chain="cosine"), data.load("digits"))


def test_patches_must_divide_the_images(tmp_path):
    config = configs.load("dit_digits").Config(patch=3)
    run = runs.build(tmp_path, "dit_digits", config)
    with pytest.raises(ValueError, match="patches of 3 must divide"):
        jax.eval_shape(run.experiment.model.init, KEY, Batch(run.dataset.train.x[:1], run.dataset.train.cond[:1]))
