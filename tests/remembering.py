"""A model whose loss remembers everything that a loss may remember."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxgen.core import DATA_AXIS, Model


def remembering(num_chains) -> Model:
    """Chains that reach the gradient, an average over the batch, and a count."""

    def init(key, batch):
        del batch
        carry = {
            "chains": jax.random.normal(key, (num_chains, 2)),
            "shared": (jnp.zeros(2), jnp.zeros((), jnp.int32)),
        }
        return {"mean": jnp.ones(2)}, carry

    def loss(params, carry, key, batch):
        average, count = carry["shared"]
        chains = 0.5 * carry["chains"] + 0.1 * jax.random.normal(key, carry["chains"].shape) + params["mean"]
        chains = jax.lax.stop_gradient(chains)
        value = ((batch.x - params["mean"]) ** 2).sum(-1).mean() + (chains @ params["mean"] ** 3).mean()
        shared = (0.5 * average + 0.5 * batch.x.mean(0), count + 1)
        return value, ({"chains": chains, "shared": shared}, {"chain_mean": chains.mean()})

    def sample(params, key, num, cond=None):
        del cond
        return params["mean"] + jax.random.normal(key, (num, 2))

    spec = {"chains": PartitionSpec(DATA_AXIS), "shared": PartitionSpec()}
    return Model(init=init, loss=loss, sample=sample, carry_spec=spec)
