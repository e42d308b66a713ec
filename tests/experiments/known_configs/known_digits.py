"""A Gaussian of known scale around the mean image of each class, to test the commands with."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from experiments import config
from experiments.config import Evaluation, Experiment
from jaxgen.core import Model
from jaxgen.distributions import normal_log_prob, sum_event

LOG_SCALE = 1.0
SAMPLING_FIELDS = ("temperature",)


@dataclasses.dataclass(frozen=True)
class Config(config.Config):
    """The known Gaussian."""

    steps: int = 6
    """Number of training steps."""
    learning_rate: float = 0.5
    """Step size of the optimiser."""
    widths: tuple[int, ...] = (1, 2)
    """Not used: to see that tuples survive."""
    temperature: float = 1.0
    """Factor of the noise of samples."""


def build(config, dataset):
    """Fields with values that follow from `log_prob` by hand."""
    classes = dataset.num_classes if config.conditional else 1

    def mean(params, num, cond):
        labels = jnp.zeros(num, jnp.int32) if cond is None else cond
        assert (cond is None) != config.conditional
        return params["mean"][labels]

    def log_prob(params, x, cond=None):
        return sum_event(normal_log_prob(x.astype(jnp.float32), mean(params, x.shape[0], cond), LOG_SCALE))

    def init(key, batch):
        del key
        return {"mean": jnp.zeros((classes, *batch.x.shape[1:]))}, ()

    def loss(params, carry, key, batch):
        del key
        return -log_prob(params, batch.x, batch.cond if config.conditional else None).mean(), (carry, {"two": 2.0})

    def sample(params, key, num, cond=None):
        noise = jax.random.normal(key, (num, *dataset.train.x.shape[1:]))
        return mean(params, num, cond) + config.temperature * jnp.exp(LOG_SCALE) * noise

    def log_weight(params, key, x, cond=None):
        factor = jnp.where(jax.random.bernoulli(key, shape=x.shape[:1]), 1.8, 0.2)
        return log_prob(params, x, cond) + jnp.log(factor)

    def complete(params, key, given, cond):
        drawn = sample(params, key, given.shape[0], cond)
        return jnp.concatenate([given.astype(drawn.dtype), drawn[:, given.shape[1] :]], 1)

    model = Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob,
        log_weight=log_weight,
        elbo=lambda params, key, x, cond=None: log_prob(params, x, cond) - 3,
        encode=lambda params, key, x, cond=None: x,
        decode=lambda params, latent, cond=None: latent + 2.0,
    )
    return Experiment(
        model,
        optax.adam(config.learning_rate),
        evaluations={"something of its own": Evaluation(lambda *_: (1.5, 0.25), "nats", "half width, made up")},
        sample_from=lambda params, key, x: x + 1,
        complete=complete,
    )
