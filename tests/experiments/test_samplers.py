"""Names of samplers and grids on the command line."""

import itertools
import math

import jax
import jax.numpy as jnp
import pytest

from experiments import data, samplers, train
from experiments.configs import diffusion_digits
from experiments.errors import UserError
from jaxgen import paths
from jaxgen.samplers.heun import heun
from jaxgen.types import Batch


@pytest.mark.parametrize("name", samplers.STEPPERS)
def test_no_more_evaluations_than_asked_for(name):
    stepper = samplers.STEPPERS[name]()
    taken = samplers.num_steps(stepper, 9) * stepper.num_evaluations
    assert 9 - stepper.num_evaluations < taken <= 9


def drawn(**fields):
    """Eight digits, on the scale of the reals that the model is of, of a network at its start; and their latents."""
    config = diffusion_digits.Config(channels=4, levels=1, **fields)
    dataset = data.load("digits")
    model, labels = diffusion_digits.build(config, dataset).model, jnp.arange(8)
    batch = Batch(jnp.asarray(dataset.train.x[:8]), labels)
    params = jax.jit(model.init)(jax.random.key(0), batch)[0]
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    noise = jax.random.normal(jax.random.key(3), batch.x.shape)
    return jax.jit(model.decode)(params, noise, labels), jax.jit(model.sample, static_argnums=2)(
        params, jax.random.key(2), 8, labels
    )


def test_adaptive_steps_follow_the_flow_and_the_tolerance():
    """Of one noise they make the levels that 500 steps of Heun make, but for a few at 1e-6, and many others at 0.3."""
    exact = drawn(num_evaluations=1000)[0]
    adaptive = {"sampler": "dormand_prince", "num_evaluations": 1}  # of which it takes no notice
    fine, coarse = (drawn(**adaptive, tolerance=each)[0] for each in (1e-6, 0.3))
    assert (fine == exact).mean() > 0.99
    assert (coarse == exact).mean() < 0.95


def test_runs_decode_by_the_encoder_that_they_name():
    by_name = [drawn(sampler="ddpm", encoder=name, num_evaluations=6)[0] for name in ("heun", "ddim", "unipc")]
    assert all((a != b).mean() > 0.01 for a, b in itertools.pairwise(by_name))
    assert (drawn(encoder="heun", num_evaluations=6)[0] == by_name[0]).all()


def test_guidance_in_an_interval_is_none_outside_of_it():
    """At levels that no step has, samples are those without guidance; at all levels, those with it everywhere."""
    dropped = {"condition_dropout": 0.1, "num_evaluations": 6}
    plain, guided = (drawn(**dropped, guidance=scale)[1] for scale in (1.0, 3.0))
    never, always = (drawn(**dropped, guidance=3.0, guidance_at=levels)[1] for levels in ("1e7,1e8", "0,1e8"))
    assert (never == plain).all()
    assert (always == guided).all()
    assert (guided != plain).any()


@pytest.mark.parametrize("name", samplers.GRIDS)
def test_grids_fall(name):
    assert (jnp.diff(samplers.grid(name)(paths.cosine(), 8)) < 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guidance": 2.0, "conditional": False}, "--guidance and --condition-dropout need labels"),
        ({"guidance": 2.0}, "--guidance needs a --condition-dropout between 0 and 1, got 0.0"),
        ({"condition_dropout": 1.5}, "got 1.5"),
        ({"condition_dropout": 0.1, "guidance": 2.0, "guidance_at": "5,1"}, "--guidance-at must be two .*, got '5,1'"),
        ({"condition_dropout": 0.1, "guidance": 2.0, "guidance_at": "1"}, "--guidance-at must be two .*, got '1'"),
        ({"num_evaluations": 1, "sampler": "heun"}, "at least 2"),
        ({"sampler": "hean"}, "--sampler must be one of ddim, .*, dormand_prince, got 'hean'"),
        ({"encoder": "ddpm"}, "--encoder must be one of ddim, euler, .*, got 'ddpm'"),
        ({"sampler": "dormand_prince", "tolerance": 1e-9}, "--tolerance must be at least 1e-06, .*, got 1e-09"),
        ({"sampler": "dormand_prince", "tolerance": math.nan}, "--tolerance must be at least 1e-06, .*, got nan"),
    ],
)
def test_a_diffusion_that_cannot_be_sampled_so_is_refused(fields, message):
    dataset = data.load("digits")
    with pytest.raises(UserError, match=message):
        diffusion_digits.build(diffusion_digits.Config(**fields), dataset)


@pytest.mark.parametrize(
    ("name", "flag", "message"),
    [
        ("diffusion_digits", "--num-evaluations", "--num-evaluations must be at least 1, .*, got 0"),
        ("consistency_digits", "--num-evaluations", "--num-evaluations must be at least 1, got 0"),
        ("continuous_consistency_digits", "--num-evaluations", "--num-evaluations must be at least 1, got 0"),
        ("mean_flow_digits", "--num-evaluations", "--num-evaluations must be at least 1, got 0"),
        ("shortcut_digits", "--num-evaluations", "--num-evaluations must be a power of two, at most 64, got 0"),
        ("vdm_digits", "--num-evaluations", "--num-evaluations must be at least 1, got 0"),
        ("masked_diffusion_digits", "--num-evaluations", "--num-evaluations must be at least 1, got 0"),
        ("vdm_digits", "--num-bound-times", "--num-bound-times must be at least 1, got 0"),
        ("masked_diffusion_digits", "--num-bound-times", "--num-bound-times must be at least 1, got 0"),
        ("d3pm_digits", "--num-bound-times", "--num-bound-times must be at least 1, got 0"),
        ("d3pm_digits", "--chain-steps", "--chain-steps must be at least 1, got 0"),
        ("consistency_digits", "--num-intervals", "--num-intervals must be at least 1, got 0"),
        ("consistency_digits", "--num-stages", "--num-stages must be at least 1, got 0"),
        ("diffusion_digits", "--likelihood-steps", "--likelihood-steps must be at least 1, got 0"),
        ("flow_matching_digits", "--likelihood-steps", "--likelihood-steps must be at least 1, got 0"),
    ],
)
def test_no_steps_at_all_are_refused(name, flag, message, tmp_path):
    """On the command line of a training, which says so in one line and makes no run directory."""
    with pytest.raises(UserError, match=f"{message}$") as error:
        train.main([name, "--workdir", str(tmp_path / "run"), flag, "0"])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: samplers.grid("even"), "--grid must be one of uniform, .*, got 'even'"),
        (lambda: samplers.num_steps(heun(), 1), "at least 2, .*, got 1"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
