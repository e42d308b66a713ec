"""Names of samplers and grids on the command line."""

import jax.numpy as jnp
import pytest

from experiments import data, samplers
from experiments.configs import diffusion_digits
from experiments.errors import UserError
from jaxgen import paths


@pytest.mark.parametrize("name", samplers.STEPPERS)
def test_no_more_evaluations_than_asked_for(name):
    stepper = samplers.stepper(name)
    taken = samplers.num_steps(stepper, 9) * stepper.num_evaluations
    assert 9 - stepper.num_evaluations < taken <= 9


@pytest.mark.parametrize("name", samplers.GRIDS)
def test_grids_fall(name):
    assert (jnp.diff(samplers.grid(name)(paths.cosine(), 8)) < 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guidance": 2.0, "conditional": False}, "--guidance and --condition-dropout need labels"),
        ({"guidance": 2.0}, "--guidance needs a --condition-dropout between 0 and 1, got 0.0"),
        ({"condition_dropout": 1.5}, "got 1.5"),
        ({"num_evaluations": 1, "sampler": "heun"}, "at least 2"),
    ],
)
def test_a_diffusion_that_cannot_be_sampled_so_is_refused(fields, message):
    dataset = data.load("digits")
    with pytest.raises(UserError, match=message):
        diffusion_digits.build(diffusion_digits.Config(**fields), dataset)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: samplers.stepper("hean"), "--sampler must be one of ddim, .*, got 'hean'"),
        (lambda: samplers.grid("even"), "--grid must be one of uniform, .*, got 'even'"),
        (lambda: samplers.num_steps(samplers.stepper("heun"), 1), "at least 2, .*, got 1"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UserError, match=message):
        call()
