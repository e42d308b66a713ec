"""Every model of the library, once: adding a model to every invariant is adding one entry here."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxgen.core import Model
from jaxgen.distributions import bernoulli_likelihood, normal_likelihood
from jaxgen.models.autoencoders.vae import vae
from jaxgen.models.classical.ppca import ppca
from jaxgen.nets.mlp import MLP
from jaxgen.types import Batch

NUM = 16
NUM_CLASSES = 3


class Support(NamedTuple):
    """Points and weights with `sum(weights * p(points)) = 1` for any density or probability on them."""

    points: Any
    weights: Any


class Entry(NamedTuple):
    """A model with what the invariants need to know of it.

    Attributes:
        name: shown in the names of the tests.
        model: a small instance.
        batch: `NUM` examples.
        tx: optimiser.
        conditional: whether the model reads `cond`.
        support: where `log_prob` sums or integrates to one, if that can be checked.
        exceptions: names of invariants that this model is known not to obey, with the reason.
    """

    name: str
    model: Model
    batch: Batch
    tx: optax.GradientTransformation = optax.adam(1e-2)
    conditional: bool = False
    support: Support | None = None
    exceptions: dict[str, str] = {}  # noqa: RUF012


def grid(limit: float, num: int) -> Support:
    """The square [-limit, limit]^2 with the trapezium rule."""
    axis = jnp.linspace(-limit, limit, num)
    points = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    return Support(points, jnp.full(num**2, (axis[1] - axis[0]) ** 2))


def real(*shape: int) -> Batch:
    """Correlated reals with labels."""
    x = jax.random.normal(jax.random.key(1), (NUM, *shape))
    return Batch(x + 0.5 * jnp.roll(x, 1, -1), jnp.arange(NUM) % NUM_CLASSES)


def levels(num_levels: int, *shape: int) -> Batch:
    """Integers 0 .. num_levels - 1 with labels."""
    x = jax.random.randint(jax.random.key(2), (NUM, *shape), 0, num_levels).astype(jnp.uint8)
    return Batch(x, jnp.arange(NUM) % NUM_CLASSES)


ENTRIES = [
    Entry("ppca", ppca(2, 1), real(2), support=grid(12, 241)),
    Entry(
        "vae",
        vae(MLP((8,), 4, NUM_CLASSES), MLP((8,), 6, NUM_CLASSES), bernoulli_likelihood(), latent_dim=2),
        levels(2, 6),
        conditional=True,
    ),
    Entry("vae_normal", vae(MLP((8,), 4), MLP((8,), 6), normal_likelihood(), latent_dim=2), real(6)),
]
