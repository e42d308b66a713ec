"""Restricted Boltzmann machine of binarised 28x28 images, by persistent contrastive divergence.

    python -m experiments.train rbm_mnist --workdir runs/rbm_mnist

With `--steps 30000`, 10 CPU minutes of an AMD EPYC: -87.17 nats by annealed importance sampling, all test images,
dynamic binarisation (RESULTS.md); no published number is recorded.

The loss is no likelihood and stays near zero: watch `pseudo_log_prob`. The likelihood comes from annealed importance
sampling, which errs towards too LARGE a likelihood; its interval can be believed while one standard error is below
about 0.2 nats: else raise --ais_steps.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from experiments import checks, config
from experiments.config import Evaluation, Experiment
from experiments.data import Dataset, Split
from experiments.errors import UserError
from jaxgen.bijections import reshape
from jaxgen.kernels.ais import LogMean
from jaxgen.models.energy.rbm import (
    MAX_ENUMERATED,
    ais_log_partition,
    base_rate_logits,
    energy,
    log_partition,
    rbm,
    sample_from,
)
from jaxgen.transforms import normalize, pull_back
from jaxgen.types import Data, Params, PRNGKey


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """Restricted Boltzmann machine."""

    data: str = "mnist_binary"
    """Data set of binarised images; `--help` lists them."""
    steps: int = 50000
    """Number of training steps in all (a resumed run goes on to this number)."""
    learning_rate: float = 0.1
    """Step size of gradient descent at the start; it falls linearly to zero at the last step."""
    num_hidden: int = 500
    """H, the number of hidden units."""
    num_chains: int = 128
    """Persistent chains, over all devices; 0 for contrastive divergence, whose chains start at the batch."""
    gibbs_steps: int = 1
    """k, Gibbs steps of the chains before each update."""
    sample_steps: int = 1000
    """Gibbs steps from noise to a sample."""
    ais_chains: int = 100
    """Chains of annealed importance sampling."""
    ais_steps: int = 10000
    """Temperatures of annealed importance sampling."""


def build(config: Config, dataset: Dataset) -> Experiment:
    """Builds the machine of flattened images."""
    shape = dataset.train.x.shape[1:]
    if dataset.num_levels != 2:
        expected = "expected a name that ends in _binary, _threshold or _static"
        raise UserError(f"this machine models bits, and {dataset.name} has {dataset.num_levels} levels: {expected}")
    checks.unconditional(config, "this machine")
    flat = reshape(shape, (math.prod(shape),))
    vectors = rbm(
        math.prod(shape),
        config.num_hidden,
        num_steps=config.gibbs_steps,
        num_chains=config.num_chains or None,
        sample_steps=config.sample_steps,
    )

    def continued(params: Params, key: PRNGKey, x: Data) -> Data:
        start = x.reshape(x.shape[0], -1)
        return sample_from(params, key, start, config.sample_steps).reshape(x.shape)

    exact = min(math.prod(shape), config.num_hidden) <= MAX_ENUMERATED
    return Experiment(
        model=pull_back(vectors, flat),
        tx=optax.sgd(optax.linear_schedule(config.learning_rate, 0.0, config.steps)),
        evaluations=_evaluations(config),
        likelihood=pull_back(normalize(vectors, log_partition), flat) if exact else None,
        likelihood_protocol="ln Z summed over all states of the smaller layer" if exact else "",
        sample_from=continued,
    )


def _evaluations(config: Config) -> dict[str, Evaluation]:
    """Annealed importance sampling, alone and with the free energies of a whole part."""
    estimate = _estimator(config)

    def ais_log_z(params: Params, key: PRNGKey, dataset: Dataset, split: Split) -> tuple[float, float]:
        del split
        found = estimate(params, key, _flatten(dataset.train.x))
        return float(found.value), float(found.upper - found.value)

    def ais_log_likelihood(params: Params, key: PRNGKey, dataset: Dataset, split: Split) -> tuple[float, float]:
        found = estimate(params, key, _flatten(dataset.train.x))
        values = -np.asarray(jax.jit(energy)(params, _flatten(split.x)), np.float64) - float(found.value)
        return float(values.mean()), math.hypot(values.std() / math.sqrt(values.size), float(found.standard_error))

    path = f"annealed importance sampling, {config.ais_chains} chains, {config.ais_steps} temperatures from base rates"
    return {
        "log partition": Evaluation(ais_log_z, "nats", f"{path}; +- 3 standard errors; a lower bound on average"),
        "log likelihood (AIS)": Evaluation(
            ais_log_likelihood, "nats", f"{path}; +- 1 standard error; too large on average", "higher"
        ),
    }


def _estimator(config: Config) -> Callable[[Params, PRNGKey, Any], LogMean]:
    """`(params, key, train) -> ln Z`, compiled once."""

    @jax.jit
    def estimate(params: Params, key: PRNGKey, train: Data) -> LogMean:
        betas = _path(config.ais_steps)
        base_logits = base_rate_logits(train)
        return ais_log_partition(params, key, config.ais_chains, betas, base_logits=base_logits)

    return estimate


def _path(num: int) -> Float[Array, " num"]:
    """Temperatures from 0 to 1, densest near 1, in the proportions of Salakhutdinov and Murray, 2008."""
    knots = jnp.array([0, 500, 4500, 14500]) / 14500
    return jnp.interp(jnp.linspace(0, 1, num), knots, jnp.array([0, 0.5, 0.9, 1]))


def _flatten(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0], -1)
