"""Programs of samplers: they do not grow with the number of steps, and a grid is an argument like any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import paths
from jaxgen.models.diffusion.consistency import consistency
from jaxgen.models.diffusion.continuous_consistency import continuous_consistency
from jaxgen.models.diffusion.d3pm import d3pm
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.models.diffusion.masked_diffusion import masked_diffusion
from jaxgen.models.diffusion.mean_flow import mean_flow
from jaxgen.models.diffusion.shortcut import shortcut
from jaxgen.models.diffusion.vdm import vdm
from jaxgen.nets.time import TimeMLP
from jaxgen.nets.tokens import TokenNet
from jaxgen.paths import transitions
from jaxgen.samplers import jump
from jaxgen.samplers.ddpm import ddpm
from jaxgen.samplers.edit import condition, inpaint, interpolate, sdedit
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import integrate
from jaxgen.samplers.unipc import unipc
from jaxgen.transforms import probability_flow, resample
from jaxgen.types import Batch

KEY, PATH, SHAPE, LEVELS = jax.random.key(0), paths.cosine(), (3,), 4
NET, NUM, LABELS = TimeMLP((4,), 2), 2, jnp.arange(2)
X, SHARES = jnp.ones((NUM, *SHAPE)), jnp.array([0.0, 0.5])
KNOWN = X > 0


def chain(num_steps):
    return transitions.uniform(LEVELS, num_steps)


def tokens(num_states):
    return TokenNet(NET, LEVELS, num_states, width=2)


MODELS = {
    "diffusion": lambda num: diffusion(NET, SHAPE, num_steps=num),
    "consistency": lambda num: consistency(NET, SHAPE, num_steps=num),
    "continuous_consistency": lambda num: continuous_consistency(NET, SHAPE, num_steps=num),
    "mean_flow": lambda num: mean_flow(NET, SHAPE, num_steps=num),
    "shortcut": lambda num: shortcut(NET, SHAPE, num_steps=num),
    "vdm": lambda num: vdm(NET, SHAPE, num_steps=num),
    "d3pm": lambda num: d3pm(tokens(LEVELS), SHAPE, chain(num)),
    "masked_diffusion": lambda num: masked_diffusion(tokens(LEVELS + 1), SHAPE, LEVELS, num_steps=num),
    "resample": lambda num: resample(diffusion(NET, SHAPE), PATH, stepper=unipc(), num_steps=num),
    "probability_flow": lambda num: probability_flow(diffusion(NET, SHAPE), PATH, num_steps=num),
}


def size(function, *args):
    """Equations of the program of a function, those of its loops and of its inner functions among them."""
    return str(jax.make_jaxpr(function)(*args)).count("=")


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_programs_of_samples_do_not_grow_with_the_number_of_steps(build):
    """Neither do those of `decode`, where there is one: 4 steps and 64."""

    def sizes(num_steps):
        model = build(num_steps)
        x = X.astype(jnp.int32) if build in (MODELS["d3pm"], MODELS["masked_diffusion"]) else X
        params = jax.eval_shape(model.init, KEY, Batch(x, LABELS))[0]
        found = [size(lambda params, key, cond: model.sample(params, key, NUM, cond), params, KEY, LABELS)]
        return found + ([] if model.decode is None else [size(model.decode, params, X, LABELS)])

    assert sizes(4) == sizes(64)


def denoise(x_t, t):
    return 0.5 * x_t + t


EDITS = {
    "inpaint": lambda grid: inpaint(ddpm(), denoise, PATH, KEY, X, KNOWN, grid),
    "inpaint_again": lambda grid: inpaint(unipc(), denoise, PATH, KEY, X, KNOWN, grid, jump_length=3, num_resamples=2),
    "interpolate": lambda grid: interpolate(heun(), denoise, PATH, X, 2 * X, SHARES, grid),
    "sdedit": lambda grid: sdedit(ddpm(), denoise, PATH, KEY, X, grid),
    "condition": lambda grid: integrate(heun(), condition(denoise, PATH, X, lambda x: x), PATH, KEY, X, grid),
    "jump": lambda grid: jump.decode(lambda x, t, s: denoise(x, t - s), PATH, X, grid),
}


@pytest.mark.parametrize("use", EDITS.values(), ids=EDITS)
def test_programs_of_edits_do_not_grow_with_the_number_of_steps(use):
    """4 steps and 64; neither do passes that go back over stretches of them."""
    small, large = (size(use, paths.uniform_grid(PATH, num)) for num in (4, 64))
    assert small == large


OF_GRIDS = {
    "diffusion": lambda grid: diffusion(NET, SHAPE, grid=grid, num_steps=4),
    "consistency": lambda grid: consistency(NET, SHAPE, path=PATH, grid=grid, num_steps=4),
    "continuous_consistency": lambda grid: continuous_consistency(NET, SHAPE, grid=grid, num_steps=4),
    "mean_flow": lambda grid: mean_flow(NET, SHAPE, path=PATH, grid=grid, num_steps=4),
    "masked_diffusion": lambda grid: masked_diffusion(
        tokens(LEVELS + 1), SHAPE, LEVELS, grid=lambda num: grid(None, num), num_steps=4
    ),
    "resample": lambda grid: resample(diffusion(NET, SHAPE), PATH, grid=grid, num_steps=4),
}


@pytest.mark.parametrize("build", OF_GRIDS.values(), ids=OF_GRIDS)
def test_a_model_that_is_built_around_a_traced_grid_is_traced_once(build):
    """Other times give other samples, which are those of a model that was built around these times."""
    traces, of_tokens = [], build is OF_GRIDS["masked_diffusion"]
    ends = (1.0, 0.0) if of_tokens else (PATH.t_max, PATH.t_min)
    even, bent = (ends[1] + (ends[0] - ends[1]) * jnp.linspace(1, 0, 5) ** power for power in (1, 3))
    x = X.astype(jnp.int32) if of_tokens else X
    shapes = jax.eval_shape(build(lambda path, num: even).init, KEY, Batch(x, LABELS))[0]
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.3), shapes)

    def sample(times, num=20):
        return build(lambda path, num: times).sample(params, KEY, num, jnp.arange(num) % 2)

    @jax.jit
    def compiled(times):
        traces.append(1)
        return sample(times)

    found = [compiled(times) for times in (even, bent)]
    assert len(traces) == 1
    assert abs(found[0].astype(float) - found[1].astype(float)).max() > 1e-2
    np.testing.assert_allclose(found[1], jax.jit(lambda: sample(bent))(), rtol=1e-4, atol=1e-4)
