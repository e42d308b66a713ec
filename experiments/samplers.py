"""Samplers of noise paths by the names that flags take."""

from collections.abc import Callable
from typing import Any

from experiments.errors import UserError
from jaxgen import paths
from jaxgen.core import Model
from jaxgen.paths import Path
from jaxgen.samplers.adaptive import dormand_prince
from jaxgen.samplers.ddim import ddim
from jaxgen.samplers.ddpm import ddpm
from jaxgen.samplers.dpm_solver import dpm_solver_2m, dpm_solver_2s, dpm_solver_3m, dpm_solver_sde_2m
from jaxgen.samplers.euler import euler
from jaxgen.samplers.euler_maruyama import euler_maruyama
from jaxgen.samplers.heun import heun
from jaxgen.samplers.loop import Stepper
from jaxgen.samplers.unipc import unipc
from jaxgen.transforms import probability_flow

__all__ = ["ADAPTIVE", "ENCODERS", "GRIDS", "STEPPERS", "adaptive", "grid", "num_steps", "options"]

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

FINEST = 1e-6
"""Smallest tolerance of adaptive steps, some ten times the spacing of float32 at 1."""

ENCODERS = ("ddim", "euler", "heun", "dpm_solver_2s", "dpm_solver_2m", "dpm_solver_3m", "unipc")
"""Names of deterministic ones, which can go back to the noise."""

ADAPTIVE = "dormand_prince"
"""Another name that `--sampler` takes: the probability flow by steps as long as `--tolerance` allows."""

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


def options(config: Any) -> dict[str, Any]:
    """`stepper`, `encoder`, `grid` and `num_steps`, as `jaxgen.diffusion` and `jaxgen.resample` take them.

    Where `--sampler` is the adaptive one, `encoder` stands in for it until `adaptive` replaces what either would draw.

    Raises:
        UserError: if a name is unknown, or the evaluations do not make a step.
    """
    encoder = _named("encoder", config.encoder, {name: STEPPERS[name] for name in ENCODERS})()
    known: dict[str, Callable[[], Stepper]] = {**STEPPERS, ADAPTIVE: lambda: encoder}
    chosen = _named("sampler", config.sampler, known)()
    steps = 1 if config.sampler == ADAPTIVE else num_steps(chosen, config.num_evaluations)
    return {"stepper": chosen, "encoder": encoder, "grid": grid(config.grid), "num_steps": steps}


def adaptive(model: Model, path: Path, config: Any) -> Model:
    """The model with samples, `encode` and `decode` of the probability flow by adaptive steps, if they are asked for.

    Raises:
        UserError: if the tolerance is finer than float32 can tell.
    """
    if config.sampler != ADAPTIVE:
        return model
    if not config.tolerance >= FINEST:
        raise UserError(f"--tolerance must be at least {FINEST}, as float32 tells no less, got {config.tolerance}")
    flow = probability_flow(model, path, solver=dormand_prince(rtol=config.tolerance, atol=config.tolerance))
    return model._replace(sample=flow.sample, encode=flow.encode, decode=flow.decode)
