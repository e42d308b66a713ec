"""Steps against those of diffusers' schedulers, recorded by make_diffusers_fixture.py with the same noise.

Where they differ from their papers, the record is of the paper's step: the Heun scheduler is handed back its own
sample, not the one it scaled for the network; with churn, the denoiser looks at the sample after the noise was added.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import paths
from jaxgen.samplers.churn import churned
from jaxgen.samplers.ddim import ddim
from jaxgen.samplers.ddpm import ddpm
from jaxgen.samplers.dpm_solver import dpm_solver_2m, dpm_solver_sde_2m
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import State
from jaxgen.samplers.unipc import unipc
from tests.analytic import gaussian_denoiser

FIXTURE = json.loads(pathlib.Path(__file__).with_name("diffusers.json").read_text())
NUM_STEPS = len(FIXTURE["noise"])
DISCRETE, EDM = paths.ddpm(), paths.karras(sigma_min=0.002, sigma_max=200.0)
TRAILING = paths.trailing_grid(DISCRETE, NUM_STEPS)
CHURN = FIXTURE["churn"]
CASES = {
    "ddim": (ddim(), DISCRETE, TRAILING),
    "ddim_half": (ddim(eta=0.5), DISCRETE, TRAILING),
    "ddpm": (ddpm(), DISCRETE, TRAILING),
    "dpm_solver_2m": (dpm_solver_2m(), DISCRETE, TRAILING),
    "dpm_solver_sde_2m": (dpm_solver_sde_2m(), DISCRETE, TRAILING),
    "unipc": (unipc(), DISCRETE, TRAILING),
    "heun": (heun(), EDM, FIXTURE["grids"]["heun"]),
    "edm_euler": (ddim(), EDM, FIXTURE["grids"]["edm"]),
    "edm_euler_churn": (
        churned(
            ddim(),
            churn=CHURN["s_churn"] / NUM_STEPS,
            churn_min=CHURN["s_tmin"],
            churn_max=CHURN["s_tmax"],
            noise=CHURN["s_noise"],
        ),
        EDM,
        FIXTURE["grids"]["edm"],
    ),
}


def steps(stepper, path, grid, monkeypatch):
    """x after each step from the fixture's start, with the fixture's noise in the place of every draw."""
    denoise = gaussian_denoiser(path, *(jnp.array(FIXTURE["denoiser"][name]) for name in ("mean", "variance")))

    @jax.jit
    def step(state, t, s, noise):
        monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=None: noise)
        return stepper.step(denoise, path, jax.random.key(0), state, t, s)

    grid = np.asarray(grid, np.float32)
    x = jnp.array(FIXTURE["start"]) * (grid[0] if path is EDM else 1.0)
    state, visited = State(x, stepper.init(x)), []
    for t, s, noise in zip(grid[:-1], grid[1:], jnp.array(FIXTURE["noise"]), strict=True):
        state = step(state, t, s, noise)
        visited.append(state.x)
    return visited


@pytest.mark.parametrize("name", CASES)
def test_every_step_is_that_of_diffusers(name, monkeypatch):
    stepper, path, grid = CASES[name]
    np.testing.assert_allclose(
        steps(stepper, path, grid, monkeypatch), FIXTURE["steps"][name], rtol=1e-5, atol=1e-5, err_msg=name
    )


def test_the_grid_is_that_of_the_edm_scheduler():
    path = paths.karras(sigma_min=0.002, sigma_max=80.0)
    np.testing.assert_allclose(paths.karras_grid(path, NUM_STEPS - 1), FIXTURE["grids"]["edm"][:-1], rtol=1e-5)
