"""One of several processes: a few steps and samples under every placement, saved by the first process.

python tests/multiprocess_worker.py PORT NUM_PROCESSES PROCESS_ID OUT.npz
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import numpy as np
import optax

from jaxgen.core import Model
from jaxgen.distributions import bernoulli_likelihood
from jaxgen.models.autoencoders.vae import vae
from jaxgen.nets.mlp import MLP
from jaxgen.parallel import Placement, mesh, pmap
from jaxgen.types import Batch
from tests.remembering import remembering

MODELS = {
    "vae": vae(MLP((8,), 4, 3), MLP((8,), 6, 3), bernoulli_likelihood(), latent_dim=2),
    "remembering": remembering(16),
}
TX, STEPS, NUM, EMA = optax.adam(1e-2), 3, 16, 0.9
FAST = {"xla_backend_optimization_level": "0"}
PLACEMENTS = {
    "pmap": lambda: pmap(compiler_options=FAST),
    "mesh": lambda: mesh(compiler_options=FAST),
    "mesh_fsdp": lambda: mesh(fsdp=2, compiler_options=FAST),
}
CASES = [("vae", "pmap"), ("vae", "mesh"), ("remembering", "pmap"), ("remembering", "mesh_fsdp")]


def batch(name: str, step: int) -> Batch:
    """The global batch of a step: the same in every process."""
    rng = np.random.default_rng(step)
    x = (
        rng.normal(size=(NUM, 2)).astype(np.float32)
        if name == "remembering"
        else rng.integers(0, 2, (NUM, 6), np.uint8)
    )
    return Batch(x, np.arange(NUM) % 3)


def train_and_sample(model: Model, placement: Placement, name: str) -> Any:
    """State, last metrics and samples; the state goes to the host and back after the first step."""
    state = placement.init_state(model, TX, jax.random.key(0), batch(name, 0))
    step = placement.train_step(model, TX, ema_decay=EMA)
    for k in range(STEPS):
        state, metrics = step(state, placement.put_batch(batch(name, k)))
        if k == 0:
            state = placement.put_state(model, placement.get_state(model, state))
    x = placement.sample(model)(state.ema_params, jax.random.key(1), NUM, batch(name, 0).cond)
    state = placement.get_state(model, state)
    return state._replace(key=jax.random.key_data(state.key)), metrics, x


def run() -> dict[str, np.ndarray]:
    """Every array of every case, by its name."""
    results = {}
    for name, kind in CASES:
        tree = train_and_sample(MODELS[name], PLACEMENTS[kind](), name)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            results[f"{name} {kind} {jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return results


def main(port: str, num_processes: str, process_id: str, out: str) -> None:
    """Joins the other processes and runs."""
    jax.distributed.initialize(f"localhost:{port}", int(num_processes), int(process_id))
    results = run()
    if process_id == "0":
        np.savez(out, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
