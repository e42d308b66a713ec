r"""Samplers: one loop over a grid of times (`loop`), and steppers t -> s that each are one small file.

| stepper | noise | order | evaluations per step |
|---|---|---|---|
| `ddim.ddim` | none, or the share eta | 1 | 1 |
| `euler.euler` | none | 1 | 1 |
| `heun.heun` | none | 2 | 2 |
| `dpm_solver.dpm_solver_2s` | none | 2 | 2 |
| `dpm_solver.dpm_solver_2m` | none | 2 | 1 |
| `dpm_solver.dpm_solver_3m` | none | 3 | 1 |
| `unipc.unipc` | none | 3 | 1 |
| `ddpm.ddpm` | at every step | | 1 |
| `dpm_solver.dpm_solver_sde_2m` | at every step | | 1 |
| `euler_maruyama.euler_maruyama` | at every step | | 1 |
| `heun.edm_heun` | before every step | | 2 |
| `churn.churned` | before every step of a stepper without memory | | its own |
| `predictor_corrector.predictor_corrector` | after every step of any stepper | | its own and the corrections |
| `renoise.renoise` | at every step, of a consistency function | | 1 |

`moves` holds what they share, and `multistep` the memory of those that look back. `generate` goes from noise to data
and back, `edit` starts from data or keeps a part of it, and `jump` takes mean velocities. `ode` and `adaptive` solve
any differential equation: `transforms.probability_flow` has likelihoods by them, and samples that choose their steps.
"""
