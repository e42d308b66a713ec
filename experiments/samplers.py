"""Samplers of noise paths by the names that flags take."""

from collections.abc import Callable
from typing import Any

from experiments.errors import UserError
from jaxgen import paths
from jaxgen.paths import Path
from jaxgen.samplers.ddim import ddim
from jaxgen.samplers.ddpm import ddpm
from jaxgen.samplers.dpm_solver import dpm_solver_2m, dpm_solver_2s, dpm_solver_3m, dpm_solver_sde_2m
from jaxgen.samplers.euler import euler
from jaxgen.samplers.euler_maruyama import euler_maruyama
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import Stepper
from jaxgen.samplers.unipc import unipc

__all__ = ["GRIDS", "STEPPERS", "grid", "num_steps", "options", "stepper"]

STEPPERS: dict[str, Callable[[], Stepper]] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "euler": euler,
    "heun": heun,
    "dpm_solver_2s": dpm_solver_2s,
    "dpm_solver_2m": dpm_solver_2m,
    "dpm_solver_3m": dpm_solver_3m,
    "dpm_solver_sde_2m": dpm_solver_sde_2m,
    "unipc": unipc,
    "euler_maruyama": euler_maruyama,
}

GRIDS: dict[str, Callable[[Path, int], Any]] = {
    "uniform": paths.uniform_grid,
    "quadratic": paths.quadratic_grid,
    "log_snr": paths.log_snr_grid,
    "karras": paths.karras_grid,
}


def _named(what: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise UserError(f"--{what} must be one of {', '.join(known)}, got {name!r}")
    return known[name]


def stepper(name: str) -> Stepper:
    """The stepper of a name.

    Raises:
        UserError: if there is none.
    """
    return _named("sampler", name, STEPPERS)()


def grid(name: str) -> Callable[[Path, int], Any]:
    """The grid of times of a name.

    Raises:
        UserError: if there is none.
    """
    return _named("grid", name, GRIDS)


def num_steps(stepper: Stepper, num_evaluations: int) -> int:
    """Steps that take at most so many evaluations of the network.

    Raises:
        UserError: if that is not one step.
    """
    if num_evaluations < stepper.num_evaluations:
        least = f"at least {stepper.num_evaluations}, for one step of this sampler"
        raise UserError(f"--num-evaluations must be {least}, got {num_evaluations}")
    return num_evaluations // stepper.num_evaluations


def options(sampler: str, grid_name: str, num_evaluations: int) -> dict[str, Any]:
    """`stepper`, `grid` and `num_steps`, as `jaxgen.diffusion` and `jaxgen.resample` take them.

    Raises:
        UserError: if a name is unknown, or the evaluations do not make a step.
    """
    chosen = stepper(sampler)
    return {"stepper": chosen, "grid": grid(grid_name), "num_steps": num_steps(chosen, num_evaluations)}
