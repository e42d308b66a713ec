r"""Generative adversarial networks: a generator that learns to deceive a discriminator.

With latent z of K dimensions, generator G, discriminator D (logits), and a pair of losses l_D, l_G of the logits of
real and of generated data:

    (1)  x_fake = G(z, c),  z ~ N(0, I)
    (2)  L_D = E[l_D(D(x, c), D(x_fake, c))] + (gamma / 2) E[|d D(x, c) / dx|^2]     (the last term is R1)
    (3)  L_G = E[l_G(D(x, c), D(x_fake, c))]
    (4)  loss = L_D(D, stop_gradient(G)) + L_G(stop_gradient(D), G)
    (5)  non-saturating: l_D(r, f) = softplus(-r) + softplus(f),  l_G(r, f) = softplus(-f)
    (6)  at the best discriminator D(x) = ln p(x) - ln q(x), (5) gives L_D = 2 ln 2 - 2 JSD(p, q)

Two players are one scalar: the gradient of (4) holds each player's own gradient, and nothing of the other's loss. So
the one train step trains both, at the same time, with an optimiser that knows the players by name. The labels of the
generated data are those of the batch.

Source: Generative Adversarial Networks, https://arxiv.org/abs/1406.2661; R1: Which Training Methods for GANs do
actually Converge?, https://arxiv.org/abs/1801.04406.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jaxgen.core import Model
from jaxgen.distributions import sum_event
from jaxgen.types import Batch, Carry, Cond, Data, Metrics, Params, PerExample, PRNGKey

__all__ = ["AdversarialLoss", "gan", "non_saturating", "play", "r1_penalty", "two_player_optimizer"]

Latent = Float[Array, "n k"]
Critic = Callable[[Data], PerExample]


class AdversarialLoss(NamedTuple):
    """What the players minimise, as functions of the discriminator's logits, one number for each example.

    Attributes:
        discriminator: `(real [n], fake [n]) -> [n]`, l_D in (2).
        generator: `(real [n], fake [n]) -> [n]`, l_G in (3).
    """

    discriminator: Callable[[PerExample, PerExample], PerExample]
    generator: Callable[[PerExample, PerExample], PerExample]


def non_saturating() -> AdversarialLoss:
    """Cross-entropy of real against generated data, and its non-saturating generator: (5)."""

    def generator(real: PerExample, fake: PerExample) -> PerExample:
        del real
        return jax.nn.softplus(-fake)

    return AdversarialLoss(
        discriminator=lambda real, fake: jax.nn.softplus(-real) + jax.nn.softplus(fake),
        generator=generator,
    )


def two_player_optimizer(
    generator_tx: optax.GradientTransformation,
    discriminator_tx: optax.GradientTransformation,
    *,
    generator_every: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """One optimiser for two players, who may take turns of unequal length.

    The discriminator moves at every step and the generator at steps k - 1, 2k - 1, ... (counted from 0), so that k
    discriminator updates come before each of its own. In between neither the generator nor its optimiser's state
    changes.

    Args:
        generator_tx: optimiser of `params["generator"]`.
        discriminator_tx: optimiser of `params["discriminator"]`.
        generator_every: k >= 1.

    Returns:
        An optimiser of parameters `{"generator": ..., "discriminator": ...}`.

    Raises:
        ValueError: if `generator_every < 1`.
    """
    if generator_every < 1:
        raise ValueError(f"generator_every must be at least 1, got {generator_every}")
    if generator_every > 1:
        its_turn = lambda step: step % generator_every == generator_every - 1  # noqa: E731
        generator_tx = optax.conditionally_mask(generator_tx, its_turn)
    players = {"generator": generator_tx, "discriminator": discriminator_tx}
    return optax.partition(players, {name: name for name in players})


def r1_penalty(critic: Critic, x: Data) -> PerExample:
    """The last term of (2) without its weight: |d D(x) / dx|^2 / 2 for each example."""
    return 0.5 * sum_event(jax.grad(lambda y: critic(y).sum())(x) ** 2)


def play(
    pays: AdversarialLoss, critic: Critic, frozen: Critic, x: Data, fake: Data, *, r1_weight: float = 0.0
) -> tuple[Array, Metrics]:
    """The scalar (4), and what each player pays.

    Args:
        pays: l_D and l_G.
        critic: `x -> logits [n]`, whose parameters L_D moves.
        frozen: the same function without a gradient to its parameters, for L_G.
        x: real data `[n, ...]`.
        fake: generated data `[n, ...]`.
        r1_weight: gamma in (2).

    Returns:
        L_D + L_G, and the metrics.
    """
    real_logits, fake_logits = critic(x), critic(jax.lax.stop_gradient(fake))
    discriminator_loss = pays.discriminator(real_logits, fake_logits).mean()
    generator_loss = pays.generator(frozen(x), frozen(fake)).mean()
    metrics = {"real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
    if r1_weight:
        metrics["r1"] = r1_penalty(critic, x).mean()
        discriminator_loss = discriminator_loss + r1_weight * metrics["r1"]
    metrics = {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss, **metrics}
    return discriminator_loss + generator_loss, metrics


def _check_players(x: Data, fake: Data, logits: Array) -> None:
    if fake.shape != x.shape:
        raise ValueError(f"the generator makes events of shape {fake.shape[1:]}, the data has {x.shape[1:]}")
    if logits.size != x.shape[0]:
        raise ValueError(f"the discriminator needs one logit for each example, got an output of shape {logits.shape}")


def gan(
    generator: nn.Module,
    discriminator: nn.Module,
    latent_dim: int,
    *,
    adversarial_loss: AdversarialLoss | None = None,
    r1_weight: float = 0.0,
) -> Model:
    """Builds a generative adversarial network of real data.

    Args:
        generator: `(z [n, K], cond) -> x [n, ...]`; only a collection of `params`.
        discriminator: `(x [n, ...], cond) -> logits [n]` or `[n, 1]`; only a collection of `params`, and no example
            may look at another (no batch normalisation).
        latent_dim: K, the number of latent dimensions.
        adversarial_loss: l_D and l_G; `non_saturating()` when `None`.
        r1_weight: gamma of the R1 penalty in (2), at least 0; 0 leaves it out.

    Returns:
        A `Model` of data `[n, ...]` with `sample` and `decode` (both by the generator) and no likelihood. Parameters
        are `{"generator": ..., "discriminator": ...}`, to be trained with `two_player_optimizer`. Its `loss` is the
        sum (4), whose value does not tell how good the samples are; the metrics name what each player pays.

    Raises:
        ValueError: if `latent_dim` or `r1_weight` is out of range; in `init`, if the players do not fit the data.

    Source: Generative Adversarial Networks, https://arxiv.org/abs/1406.2661.
    """
    if latent_dim < 1:
        raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
    if r1_weight < 0:
        raise ValueError(f"r1_weight must be at least 0, got {r1_weight}")
    pays = non_saturating() if adversarial_loss is None else adversarial_loss

    def decode(params: Params, latent: Latent, cond: Cond = None) -> Data:
        return jnp.asarray(generator.apply({"params": params["generator"]}, latent, cond))

    def critic(params: Params, cond: Cond) -> Critic:
        variables = {"params": params["discriminator"]}
        return lambda x: jnp.asarray(discriminator.apply(variables, x, cond)).reshape(x.shape[0])

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        generator_key, discriminator_key = jax.random.split(key)
        latent = jnp.zeros((batch.x.shape[0], latent_dim))
        fake, generator_variables = generator.init_with_output(generator_key, latent, batch.cond)
        output, discriminator_variables = discriminator.init_with_output(discriminator_key, batch.x, batch.cond)
        _check_players(batch.x, fake, output)
        return {"generator": generator_variables["params"], "discriminator": discriminator_variables["params"]}, ()

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        return decode(params, jax.random.normal(key, (num, latent_dim)), cond)

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        x, cond = batch
        fake = sample(params, key, x.shape[0], cond)
        frozen = critic(jax.lax.stop_gradient(params), cond)
        total, metrics = play(pays, critic(params, cond), frozen, x, fake, r1_weight=r1_weight)
        return total, (carry, metrics)

    return Model(init=init, loss=loss, sample=sample, decode=decode)
