"""Writes diffusers.json: what the schedulers of diffusers do, step by step, with a given denoiser and given noise.

Run in an environment with torch and diffusers, which need not have JAX:

    pip install torch==2.13.0 diffusers==0.42.1
    python tests/peers/make_diffusers_fixture.py

The denoiser is that of a Gaussian. Where a scheduler wants another view of it, that is made of it here, at the sample
and the noise level at which the scheduler really stands.
"""

import json
import pathlib

import diffusers
import numpy as np
import torch
from diffusers.schedulers import scheduling_ddpm, scheduling_edm_euler

MEAN, VARIANCE = torch.tensor([0.5, -1.0]), torch.tensor([0.25, 2.0])
NUM_STEPS = 10
DISCRETE = dict(beta_start=1e-4, beta_end=0.02, timestep_spacing="trailing")
UNCLIPPED = dict(DISCRETE, clip_sample=False, prediction_type="sample")
MULTISTEP = dict(DISCRETE, prediction_type="sample", final_sigmas_type="zero", solver_order=2)
CHURN = dict(s_churn=3.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.007)
RNG = np.random.default_rng(0)
START = torch.tensor(RNG.normal(size=(2, 2)), dtype=torch.float32)
NOISE = torch.tensor(RNG.normal(size=(NUM_STEPS, 2, 2)), dtype=torch.float32)


def denoise(x, alpha, sigma):
    """E[x_0 | x] for x = alpha x_0 + sigma eps, x_0 ~ N(MEAN, VARIANCE)."""
    return MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (x - alpha * MEAN)


def discrete_steps(scheduler, step):
    """Steps of a scheduler on the variance-preserving path of 1000 betas."""
    scheduler.set_timesteps(NUM_STEPS)
    assert scheduler.timesteps.tolist() == list(range(999, 0, -100))
    x, visited = START, []
    for index, t in enumerate(scheduler.timesteps):
        product = scheduler.alphas_cumprod[int(t)]
        x = step(denoise(x, product.sqrt(), (1 - product).sqrt()), t, x, NOISE[index])
        visited.append(x)
    return visited


def ddim(eta):
    scheduler = diffusers.DDIMScheduler(**UNCLIPPED)
    return discrete_steps(
        scheduler, lambda x0, t, x, noise: scheduler.step(x0, t, x, eta=eta, variance_noise=noise).prev_sample
    )


def ddpm():
    scheduler = diffusers.DDPMScheduler(**UNCLIPPED, variance_type="fixed_small")

    def step(x0, t, x, noise):
        scheduling_ddpm.randn_tensor = lambda *args, **kwargs: noise
        return scheduler.step(x0, t, x).prev_sample

    return discrete_steps(scheduler, step)


def dpm_solver(kind):
    scheduler = diffusers.DPMSolverMultistepScheduler(**MULTISTEP, algorithm_type=kind, solver_type="midpoint")
    return discrete_steps(scheduler, lambda x0, t, x, noise: scheduler.step(x0, t, x, variance_noise=noise).prev_sample)


def unipc():
    scheduler = diffusers.UniPCMultistepScheduler(**MULTISTEP, solver_type="bh2", predict_x0=True)
    return discrete_steps(scheduler, lambda x0, t, x, noise: scheduler.step(x0, t, x).prev_sample)


def heun():
    """The sample is x / alpha, and is handed back as the scheduler returned it (not as it is scaled for a network)."""
    scheduler = diffusers.HeunDiscreteScheduler(**DISCRETE, prediction_type="epsilon")
    scheduler.set_timesteps(NUM_STEPS)
    x, visited = START * scheduler.sigmas[0], []
    for index, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index]
        x = scheduler.step((x - denoise(x, 1.0, sigma)) / sigma, t, x).prev_sample
        if index % 2 == 1 or index == len(scheduler.timesteps) - 1:
            visited.append(x)
    sigmas = scheduler.sigmas
    return torch.cat([sigmas[:1], sigmas[1::2]]), visited


def edm_euler(churn):
    """With churn, the denoiser looks at the sample and the level after the noise was added, as the paper has it.

    The scheduler by itself would combine the network's output at the old sample with the new one.
    """
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, final_sigmas_type="zero")
    scheduler.set_timesteps(NUM_STEPS)
    x, visited = START * scheduler.sigmas[0], []
    for index, t in enumerate(scheduler.timesteps):
        sigma, noise = scheduler.sigmas[index], NOISE[index]
        inside = churn and churn["s_tmin"] <= sigma <= churn["s_tmax"]
        more = sigma * (1 + min(churn["s_churn"] / NUM_STEPS, 2**0.5 - 1)) if inside else sigma
        noisier = x + (more**2 - sigma**2) ** 0.5 * noise * churn["s_noise"] if inside else x
        scheduling_edm_euler.randn_tensor = lambda *args, noise=noise, **kwargs: noise
        scheduler.is_scale_input_called = True
        x0 = denoise(noisier, 1.0, more)
        x = scheduler.step(x0, t, x, **churn, pred_original_sample=x0).prev_sample
        visited.append(x)
    return scheduler.sigmas, visited


def numbers(values):
    return [np.asarray(value, np.float32).astype(float).round(8).tolist() for value in values]


def main():
    heun_grid, heun_steps = heun()
    edm_grid, edm_steps = edm_euler({})
    fixture = {
        "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__.split("+")[0]},
        "denoiser": {"mean": MEAN.tolist(), "variance": VARIANCE.tolist()},
        "churn": CHURN,
        "start": numbers(START),
        "noise": numbers(NOISE),
        "grids": {"heun": numbers(heun_grid), "edm": numbers(edm_grid)},
        "steps": {
            "ddim": numbers(ddim(0.0)),
            "ddim_half": numbers(ddim(0.5)),
            "ddpm": numbers(ddpm()),
            "heun": numbers(heun_steps),
            "edm_euler": numbers(edm_steps),
            "edm_euler_churn": numbers(edm_euler(CHURN)[1]),
            "dpm_solver_2m": numbers(dpm_solver("dpmsolver++")),
            "dpm_solver_sde_2m": numbers(dpm_solver("sde-dpmsolver++")),
            "unipc": numbers(unipc()),
        },
    }
    path = pathlib.Path(__file__).with_name("diffusers.json")
    path.write_text(json.dumps(fixture, indent=None, separators=(",", ":")).replace('],"', '],\n"') + "\n")


if __name__ == "__main__":
    main()
