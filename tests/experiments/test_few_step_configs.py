"""Configs of few steps, of tokens and of a transformer: each traces from raw images to a loss and to raw images."""

import jax
import numpy as np
import pytest

from experiments import configs, data, images, runs
from experiments.configs import d3pm_digits, diffusion_mnist
from experiments.data import Dataset, Split
from experiments.errors import UserError
from jaxgen import core
from jaxgen.nets.attention import attend
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


PHOTOGRAPHS = Split(np.zeros((8, 32, 32, 3), np.uint8), np.arange(8, dtype=np.int32))
CIFAR = Dataset("cifar10", PHOTOGRAPHS, PHOTOGRAPHS, PHOTOGRAPHS, num_levels=256, num_classes=10, protocol="")
DDPM_SIZE = {"channels": 128, "levels": 4, "multipliers": "1,2,2,2", "attention_at": "1", "conditional": False}


@pytest.mark.parametrize(
    ("fields", "published"),
    [({"num_blocks": 2}, 35_746_307), ({"num_blocks": 4, "style": "ddpm++", "dtype": "bfloat16"}, 61_804_419)],
    ids=["ddpm", "ddpm++"],
)
def test_published_networks_are_flags_away(fields, published):
    """Traced only: their numbers of parameters, in float32, and an update with blocks computed twice."""
    config = diffusion_mnist.Config(data="cifar10", remat=True, **DDPM_SIZE, **fields)
    model, tx = diffusion_mnist.build(config, CIFAR)[:2]
    batch = Batch(CIFAR.train.x)
    state = jax.eval_shape(lambda key, batch: core.init_state(model, tx, key, batch), KEY, batch)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == published
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
    program = jax.make_jaxpr(core.train_step(model, tx))(state, batch)
    assert "remat" in str(program)
    assert ("bf16" in str(program)) == (config.dtype == "bfloat16")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"style": "biggan"}, "--style must be one of ddpm, ddpm++, ncsn++, adm, got 'biggan'"),
        ({"dtype": "float16"}, "--dtype must be one of float32, bfloat16, got 'float16'"),
        ({"multipliers": "1,2"}, "--multipliers must be 3 numbers, as --levels, got '1,2'"),
        ({"multipliers": "1,0,2"}, "--multipliers must be integers of at least 1 with commas between, got '1,0,2'"),
        ({"attention_at": "low"}, "--attention-at must be integers of at least 0 with commas between, got 'low'"),
        ({"attention_at": "3"}, "attention_at must name levels 0 to 2, got (3,)"),
    ],
)
def test_sizes_that_cannot_be_read_are_named(fields, message):
    with pytest.raises((UserError, ValueError)) as error:
        diffusion_mnist.build(diffusion_mnist.Config(**fields), CIFAR)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@jax.custom_vjp
def reverse_only(query, key, value):
    """Attention without forward-mode derivatives, as the fused kernel of a GPU is."""
    return attend(query, key, value)


reverse_only.defvjp(lambda *qkv: jax.vjp(attend, *qkv), lambda pull, ct: pull(ct))


@pytest.mark.parametrize(
    "name", ["diffusion_digits", "dit_digits", "mean_flow_digits", "continuous_consistency_digits"]
)
def test_the_fused_kernel_is_used_where_reverse_mode_is_enough(monkeypatch, name):
    """Losses and likelihoods that need forward mode are traced with it all the same: they take the plain form."""
    asked = []
    monkeypatch.setattr(images, "attend_fused", lambda *qkv: asked.append(1) or reverse_only(*qkv))
    dataset = data.load("digits")
    experiment = configs.load(name).build(configs.load(name).Config(fused=True, dtype="bfloat16"), dataset)
    batch = Batch(dataset.train.x[:2], dataset.train.cond[:2])
    params, carry = jax.eval_shape(experiment.model.init, KEY, batch)
    asked.clear()
    jax.eval_shape(jax.grad(lambda *args: experiment.model.loss(*args)[0]), params, carry, KEY, batch)
    assert bool(asked) == (experiment.likelihood is not None)
    if experiment.likelihood is not None:
        asked.clear()
        jax.eval_shape(experiment.likelihood.elbo, params, KEY, *batch)
        assert not asked


def test_a_chain_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="--chain must be one of absorbing, uniform, gaussian, got 'cosine'"):
        d3pm_digits.build(d3pm_digits.Config(chain="cosine"), data.load("digits"))


def test_patches_must_divide_the_images(tmp_path):
    config = configs.load("dit_digits").Config(patch=3)
    run = runs.build(tmp_path, "dit_digits", config)
    with pytest.raises(ValueError, match="patches of 3 must divide"):
        jax.eval_shape(run.experiment.model.init, KEY, Batch(run.dataset.train.x[:1], run.dataset.train.cond[:1]))
