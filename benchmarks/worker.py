"""One config in a process of its own: `python -m benchmarks.worker train_step|sample CONFIG OPTIONS_AS_JSON`.

The last line on stdout is the result as JSON. The persistent compilation cache stays off, since compiling is measured.
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.measure import Measured, compare, ratio
from experiments import configs, data, devices
from experiments.config import Config, Experiment
from experiments.data import Dataset, Split
from experiments.errors import UserError
from jaxgen.parallel import Placement

ROWS = 2048


def load(name: str) -> tuple[Dataset, str]:
    """The data, or random data of its shape where its files are missing, and a word that says which."""
    try:
        return data.load(name), name
    except UserError:
        if not name.startswith(("mnist", "fashion_mnist")):
            raise
    num_levels = 256 if name in ("mnist", "fashion_mnist") else 2
    rng = np.random.default_rng(0)
    x = rng.integers(0, num_levels, (ROWS, 28, 28, 1), np.uint8)
    split = Split(x, rng.integers(0, 10, ROWS, np.int32))
    said = f"random, of the shape of {name}"
    return Dataset(name, split, split, split, num_levels, 10, said), said


def train_calls(experiment: Experiment, config: Config, batch: Any, placement: Placement) -> Callable[[], Any]:
    """One train step after another on one batch that lies on the device."""
    state = placement.init_state(experiment.model, experiment.tx, jax.random.key(config.seed), batch)
    step = placement.train_step(experiment.model, experiment.tx, ema_decay=config.ema_decay)
    states, placed = [state], placement.put_batch(batch)

    def call() -> Any:
        states[0], metrics = step(states[0], placed)
        return states[0].params, metrics

    return call


def sample_calls(experiment: Experiment, config: Config, batch: Any, placement: Placement) -> Callable[[], Any]:
    """One set of samples after another, as many as the batch has examples."""
    state = placement.init_state(experiment.model, experiment.tx, jax.random.key(config.seed), batch)
    draw, count = placement.sample(experiment.model), itertools.count()
    num, cond = len(batch.x), batch.cond if config.conditional else None
    return lambda: draw(state.params, jax.random.key(next(count)), num, cond)


CALLS = {"train_step": train_calls, "sample": sample_calls}


def _report(measured: Measured) -> dict[str, Any]:
    return {
        "per_second": measured.rate,
        "per_second_of_blocks": measured.rates,
        "compile_seconds": measured.compile_seconds,
        "peak_host_mib": measured.host_bytes / 2**20,
        "peak_device_mib": measured.device_bytes and measured.device_bytes / 2**20,
    }


def measure(kind: str, config_name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Measures one config with the compiler options that `experiments` uses and, where there are any, without.

    Args:
        kind: "train_step" or "sample".
        config_name: MODEL_DATA.
        options: `repeats`, `seconds`, `parallel` (or `None`), `size` (batch or samples, or `None`).

    Returns:
        What was measured, with what it depends on.
    """
    devices.keep_memory()
    module = configs.load(config_name)
    config = module.Config()
    if options["size"]:
        config = dataclasses.replace(config, batch_size=options["size"])
    dataset, said = load(config.data)
    experiment, batch = module.build(config, dataset), data.batch(dataset, config.seed, 0, config.batch_size)
    placements = {"tuned": devices.placement(options["parallel"])}
    if devices.compiler_options():
        placements["plain"] = devices.placement(options["parallel"], tuned=False)
    variants = {name: CALLS[kind](experiment, config, batch, placement) for name, placement in placements.items()}
    results = compare(variants, repeats=options["repeats"], seconds=options["seconds"])
    return {
        "benchmark": kind,
        "config": config_name,
        "data": said,
        "size": config.batch_size,
        "parallel": options["parallel"] or "default",
        **_report(results["tuned"]),
        "plain": _report(results["plain"]) if "plain" in results else None,
        "tuned_over_plain": ratio(results["tuned"], results["plain"]) if "plain" in results else None,
        "environment": devices.environment(),
        "options": options,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
