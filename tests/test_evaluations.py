"""How often networks are called by what uses them, counted on the host, against the numbers that are documented."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from jaxgen import paths
from jaxgen.bijections import affine
from jaxgen.models.diffusion.consistency import consistency
from jaxgen.models.diffusion.continuous_consistency import continuous_consistency
from jaxgen.models.diffusion.d3pm import d3pm
from jaxgen.models.diffusion.diffusion import diffusion
from jaxgen.models.diffusion.masked_diffusion import masked_diffusion
from jaxgen.models.diffusion.mean_flow import mean_flow
from jaxgen.models.diffusion.shortcut import shortcut
from jaxgen.models.diffusion.vdm import vdm
from jaxgen.nets.mlp import MLP
from jaxgen.paths import transitions
from jaxgen.samplers import jump
from jaxgen.samplers.churn import churned
from jaxgen.samplers.dpm_solver import dpm_solver_2s
from jaxgen.samplers.edit import condition, inpaint, interpolate, sdedit
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import integrate
from jaxgen.samplers.renoise import renoise
from jaxgen.transforms import (
    classifier_free_guidance,
    probability_flow,
    pull_back,
    resample,
    shape_noise,
    variational_dequantize,
)
from jaxgen.types import Batch

KEY, PATH, X, LEVELS = jax.random.key(0), paths.cosine(), jnp.ones((2, 3)), 4
TOKENS, KNOWN = jnp.zeros((2, 3), jnp.int32), jnp.array([[True, False, False]])


def times(num_steps):
    return paths.uniform_grid(PATH, num_steps)


class Net(nn.Module):
    """A network without parameters that is counted, and reads labels where there are any; of tokens it gives logits."""

    count: Any

    @nn.compact
    def __call__(self, x, level, cond=None):
        del level
        self.count(x)
        label = 0.0 if cond is None else cond[:, None]
        return 0.5 * x + label if x.dtype == jnp.float32 else jnp.zeros((*x.shape, LEVELS))


def calls(use):
    """Shapes of x in the calls that really happen while `use(count)`, compiled, runs; `count(x)` is one of them."""
    found = []

    def count(x):
        jax.debug.callback(lambda x: found.append(x.shape), x)

    jax.block_until_ready(jax.jit(lambda: use(count))())
    jax.effects_barrier()
    return found


def halved(count):
    """A denoiser that is counted, and a mean velocity."""

    def denoise(x, *of_times):
        del of_times
        count(x)
        return 0.5 * x

    return denoise


SAMPLERS = {
    "renoise": (lambda f: integrate(renoise(), f, PATH, KEY, X, times(5)), 5),
    "churned": (lambda f: integrate(churned(dpm_solver_2s(), churn=0.1), f, PATH, KEY, X, times(5)), 2 * 5),
    "jump": (lambda f: jump.decode(f, PATH, X, times(5)), 5),
    "inpaint": (lambda f: inpaint(heun(), f, PATH, KEY, X, KNOWN, times(6)), 2 * 6),
    "inpaint_again": (
        lambda f: inpaint(heun(), f, PATH, KEY, X, KNOWN, times(6), jump_length=4, num_resamples=3),
        2 * 6 * 3,
    ),
    "sdedit": (lambda f: sdedit(heun(), f, PATH, KEY, X, times(5)), 2 * 5),
    "interpolate": (  # two ends are encoded, and three points between them decoded
        lambda f: interpolate(heun(), f, PATH, X, 2 * X, jnp.array([0.0, 0.3, 1.0]), times(5)),
        (2 + 3) * 2 * 5,
    ),
    "condition": (lambda f: integrate(heun(), condition(f, PATH, X, lambda x: x), PATH, KEY, X, times(5)), 2 * 5),
}


@pytest.mark.parametrize(("use", "expected"), SAMPLERS.values(), ids=SAMPLERS)
def test_evaluations_of_samplers(use, expected):
    assert len(calls(lambda count: use(halved(count)))) == expected


def chain(num_steps):
    return transitions.uniform(LEVELS, num_steps)


MODELS = {
    "diffusion": (lambda net: diffusion(net, (3,), stepper=heun(), num_steps=5, num_bound_times=7), 2 * 5, 7),
    "vdm": (lambda net: vdm(net, (3,), num_steps=5, num_bound_times=7), 5, 7),
    "masked_diffusion": (lambda net: masked_diffusion(net, (3,), LEVELS, num_steps=5, num_bound_times=7), 5, 7),
    "d3pm": (lambda net: d3pm(net, (3,), chain(6), num_bound_times=7), 6, 7),
    "consistency": (lambda net: consistency(net, (3,), num_steps=5), 5, None),
    "continuous_consistency": (lambda net: continuous_consistency(net, (3,), num_steps=5), 5, None),
    "mean_flow": (lambda net: mean_flow(net, (3,), num_steps=5), 5, None),
    "shortcut": (lambda net: shortcut(net, (3,), num_steps=4), 4, None),
}


@pytest.mark.parametrize(("build", "of_samples", "of_elbo"), MODELS.values(), ids=MODELS)
def test_evaluations_of_models(build, of_samples, of_elbo):
    """Of samples, and of the bound where there is one."""
    x = TOKENS if build in (MODELS["masked_diffusion"][0], MODELS["d3pm"][0]) else X
    params = build(Net(lambda x: None)).init(KEY, Batch(x))[0]
    assert len(calls(lambda count: build(Net(count)).sample(params, KEY, 2))) == of_samples
    if of_elbo is not None:
        assert len(calls(lambda count: build(Net(count)).elbo(params, KEY, x))) == of_elbo


def of_score(count, wrap, **options):
    """A model with a score that is counted, wrapped."""
    return wrap(diffusion(Net(count), (3,), path=PATH), PATH, **options)


def flow(count, **options):
    return of_score(count, probability_flow, num_steps=5, **options)


WRAPPED = {
    "probability_flow_log_prob": (lambda count: flow(count).log_prob({}, X), 4 * 5),
    "probability_flow_elbo": (lambda count: flow(count, num_probes=3).elbo({}, KEY, X), 4 * 5),
    "probability_flow_sample": (lambda count: flow(count).sample({}, KEY, 2), 4 * 5),
    "probability_flow_encode": (lambda count: flow(count).encode({}, KEY, X), 4 * 5),
    "resample": (lambda count: of_score(count, resample, stepper=dpm_solver_2s(), num_steps=5).sample({}, KEY, 2), 10),
}


@pytest.mark.parametrize(("use", "expected"), WRAPPED.values(), ids=WRAPPED)
def test_evaluations_of_wrapped_scores(use, expected):
    """Divergences take derivatives, and no further evaluations."""
    assert len(calls(use)) == expected


def test_evaluations_of_guidance():
    """One, of a batch of twice the size."""
    use = lambda count: of_score(count, classifier_free_guidance, null=1, scale=2.0)  # noqa: E731
    assert calls(lambda count: use(count).score({}, X, 0.5, jnp.zeros(2))) == [(4, 3)]


def test_a_judge_of_one_time_costs_one_evaluation_a_step():
    """Besides that of the loss itself; as its own judge the model takes the eight of its bound."""

    def wrapped(count, num_judged):
        of = lambda num: pull_back(diffusion(Net(count), (3,), path=PATH, num_bound_times=num), affine(-1.0, 2.0))  # noqa: E731
        judge = of(num_judged) if num_judged else None
        return variational_dequantize(of(8), LEVELS, shape_noise(MLP((4,), 6)), judge=judge)

    params, batch = wrapped(lambda x: None, 0).init(KEY, Batch(TOKENS))[0], Batch(TOKENS)
    for num_judged, expected in ((1, 1), (0, 8)):
        loss = lambda count, num=num_judged: wrapped(count, num).loss(params, (), KEY, batch)[0]  # noqa: E731
        assert len(calls(loss)) == 1 + expected
