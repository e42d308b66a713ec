r"""Restricted Boltzmann machine of binary vectors: a product of experts, trained along Markov chains.

With visible units x in {0, 1}^D, hidden units h in {0, 1}^H, weights W [D, H] and biases b [D], c [H]:

    (1)  p(x, h) = exp(b.x + c.h + x^T W h) / Z
    (2)  p(x) = exp(-F(x)) / Z,   F(x) = -b.x - sum_j softplus(c_j + (x W)_j)             the free energy
    (3)  P(h_j = 1 | x) = sigmoid(c_j + (x W)_j),   P(x_i = 1 | h) = sigmoid(b_i + (W h)_i)
    (4)  -d ln p(x) / dw = dF(x) / dw - E_{x'~p}[dF(x') / dw]
    (5)  loss = mean_data F(x) - mean_chains F(x'),  the chains x' held constant: its gradient estimates (4)
    (6)  ln Z = ln sum_h exp(c.h + sum_i softplus(b_i + (W h)_i)), or the same with the layers exchanged
    (7)  f_beta(x) = exp(((1 - beta) a + beta b).x) prod_j (1 + exp(beta (c_j + (x W)_j))): from independent bits of
         logits a, Z_0 = 2^H prod_i (1 + exp(a_i)), to f_1 = exp(-F)
    (8)  E_i[D ln sigmoid(F(x with bit i flipped) - F(x))] = sum_i ln p(x_i | the other bits), i uniform

In contrastive divergence (CD-k) the chains start at the batch and make k steps of block Gibbs; in persistent
contrastive divergence (PCD) they go on from where the last update left them. The loss (5) is no likelihood: it stays
near zero. Watch `pseudo_log_prob`, or (6), or annealed importance sampling.

Source: Training Products of Experts by Minimizing Contrastive Divergence, Hinton, 2002,
https://doi.org/10.1162/089976602760128018; PCD: Training Restricted Boltzmann Machines using Approximations to the
Likelihood Gradient, Tieleman, 2008, https://doi.org/10.1145/1390156.1390290; (7): On the Quantitative Analysis of
Deep Belief Networks, Salakhutdinov and Murray, 2008, https://doi.org/10.1145/1390156.1390266.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Shaped

from jaxgen.core import DATA_AXIS, Model
from jaxgen.kernels.ais import LogMean, ais, log_mean_exp
from jaxgen.kernels.gibbs import gibbs
from jaxgen.kernels.kernel import Kernel, run
from jaxgen.types import Batch, Carry, Cond, Metrics, Params, PerExample, PRNGKey

__all__ = [
    "MAX_ENUMERATED",
    "ais_log_partition",
    "base_rate_logits",
    "block_gibbs",
    "decode",
    "encode",
    "energy",
    "log_partition",
    "pseudo_log_prob",
    "rbm",
    "sample_from",
]

Visible = Shaped[Array, "n d"]
Hidden = Shaped[Array, "n h"]

MAX_ENUMERATED = 20
"""Largest layer, in units, whose states `log_partition` sums over."""


def _hidden_logits(params: Params, x: Visible) -> Float[Array, "n h"]:
    return x.astype(jnp.float32) @ params["weights"] + params["hidden_bias"]


def _visible_logits(params: Params, latent: Hidden) -> Float[Array, "n d"]:
    return latent.astype(jnp.float32) @ params["weights"].T + params["visible_bias"]


def _draw(key: PRNGKey, logits: Float[Array, "n d"]) -> Visible:
    """Independent bits, as `uint8`."""
    return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.uint8)


def energy(params: Params, x: Visible, cond: Cond = None) -> PerExample:
    """Free energy (2), in nats: -ln p(x) - ln Z. Defined for real x too."""
    del cond
    hidden = jax.nn.softplus(_hidden_logits(params, x)).sum(-1)
    return -x.astype(jnp.float32) @ params["visible_bias"] - hidden


def encode(params: Params, key: PRNGKey, x: Visible, cond: Cond = None) -> Hidden:
    """Draws h | x, as in (3)."""
    del cond
    return _draw(key, _hidden_logits(params, x))


def decode(params: Params, latent: Hidden, cond: Cond = None) -> Float[Array, "n d"]:
    """Mean of x | h, as in (3)."""
    del cond
    return jax.nn.sigmoid(_visible_logits(params, latent))


def block_gibbs(params: Params) -> Kernel:
    """The Markov kernel of (3): h | x, then x | h. It leaves (2) invariant. Its x are `float32`."""
    return gibbs(
        lambda key, x: encode(params, key, x),
        lambda key, latent: _draw(key, _visible_logits(params, latent)).astype(jnp.float32),
    )


def sample_from(params: Params, key: PRNGKey, x: Visible, num_steps: int) -> Visible:
    """Chains of block Gibbs that start at given vectors.

    Args:
        params: parameters.
        key: random key.
        x: where the chains start `[n, D]`, bits or means of bits.
        num_steps: number of Gibbs steps, static, at least 1 (at 0 means of bits are rounded down).

    Returns:
        The ends of the chains `[n, D]`, bits as `uint8`.
    """
    kernel = block_gibbs(params)
    return run(kernel, key, kernel.init(x.astype(jnp.float32)), num_steps).position.astype(jnp.uint8)


def pseudo_log_prob(params: Params, key: PRNGKey, x: Visible) -> PerExample:
    """Unbiased one-bit estimate of the pseudo-log-likelihood (8), in nats."""
    num, d = x.shape
    flipped = jax.random.randint(key, (num,), 0, d)
    bit = jnp.take_along_axis(x, flipped[:, None], axis=1)[:, 0].astype(jnp.float32)
    change = 1 - 2 * bit
    before = _hidden_logits(params, x)
    after = before + change[:, None] * params["weights"][flipped]
    gain = (jax.nn.softplus(before) - jax.nn.softplus(after)).sum(-1) - change * params["visible_bias"][flipped]
    return d * jax.nn.log_sigmoid(gain)


def base_rate_logits(x: Visible) -> Float[Array, " d"]:
    """Logits of independent bits that have the means of the data: ln(q / (1 - q)), q = (sum x + 1) / (n + 2)."""
    mean = (x.astype(jnp.float32).sum(0) + 1) / (x.shape[0] + 2)
    return jnp.log(mean) - jnp.log1p(-mean)


def log_partition(params: Params) -> Float[Array, ""]:
    """Exact ln Z by (6), in nats, summed over all states of the smaller layer.

    Args:
        params: parameters of a machine whose smaller layer has at most 20 units.

    Returns:
        ln Z, differentiable.

    Raises:
        ValueError: if both layers are larger.
    """
    weights, outer, inner = params["weights"], params["visible_bias"], params["hidden_bias"]
    if weights.shape[0] < weights.shape[1]:
        weights, outer, inner = weights.T, inner, outer
    size = weights.shape[1]
    if size > MAX_ENUMERATED:
        raise ValueError(f"enumeration needs a layer of at most {MAX_ENUMERATED} units, the smaller one has {size}")

    def log_term(index: Array) -> Array:
        state = ((index >> jnp.arange(size)) & 1).astype(jnp.float32)
        return inner @ state + jax.nn.softplus(outer + weights @ state).sum()

    return jax.nn.logsumexp(jax.lax.map(log_term, jnp.arange(2**size), batch_size=4096))


def ais_log_partition(
    params: Params,
    key: PRNGKey,
    num_chains: int,
    betas: Float[Array, " k"],
    *,
    base_logits: Float[Array, " d"] | None = None,
    num_errors: float = 3.0,
) -> LogMean:
    """Estimate of ln Z by annealed importance sampling along (7), in nats.

    E[value] <= ln Z: where the path is too short, ln Z comes out too small and likelihoods too large.

    Args:
        params: parameters.
        key: random key.
        num_chains: n, the number of independent chains, at least 2.
        betas: rising from 0 to 1; thousands of numbers for a trained machine of hundreds of units.
        base_logits: a in (7), `base_rate_logits` of the data; zeros (fair bits) by default.
        num_errors: half width of the interval in standard errors.

    Returns:
        A `LogMean` of scalars; see `kernels.ais.log_mean_exp` for what its interval covers.

    Raises:
        ValueError: if there are fewer than two chains or two betas.
    """
    base = jnp.zeros_like(params["visible_bias"]) if base_logits is None else base_logits

    def log_density(x: Visible, beta: Any) -> PerExample:
        linear = x.astype(jnp.float32) @ ((1 - beta) * base + beta * params["visible_bias"])
        return linear + jax.nn.softplus(beta * _hidden_logits(params, x)).sum(-1)

    def transition(key: PRNGKey, x: Visible, beta: Any) -> Visible:
        latent_key, visible_key = jax.random.split(key)
        latent = _draw(latent_key, beta * _hidden_logits(params, x))
        return _draw(visible_key, (1 - beta) * base + beta * _visible_logits(params, latent))

    start_key, path_key = jax.random.split(key)
    start = _draw(start_key, jnp.broadcast_to(base, (num_chains, base.shape[0])))
    log_weight = ais(path_key, start, betas, log_density, transition).log_weight
    log_base = params["hidden_bias"].shape[0] * jnp.log(2.0) + jax.nn.softplus(base).sum()
    return log_mean_exp(log_weight + log_base, num_errors=num_errors)


def rbm(
    num_visible: int, num_hidden: int, *, num_steps: int = 1, num_chains: int | None = None, sample_steps: int = 1000
) -> Model:
    """Builds a restricted Boltzmann machine of binary vectors.

    Args:
        num_visible: D, the number of visible units.
        num_hidden: H, the number of hidden units.
        num_steps: k, the number of Gibbs steps before each update.
        num_chains: number of persistent chains (PCD), a multiple of the number of devices; None for chains that start
            at the batch (CD-k) and are forgotten.
        sample_steps: number of Gibbs steps from fair bits to a sample.

    Returns:
        A `Model` of data `[n, D]` in {0, 1}, of any type; samples are `uint8`. `energy` is the free energy, `encode` a
        draw of the hidden units, `decode` the means of the visible ones. The loss is (5), with the metrics
        `pseudo_log_prob`, `energy_data` and `energy_chains` (means over the batch, in nats). `init` sets the visible
        biases to the base rates of its batch, and draws the persistent chains, `carry`, from them.

    Raises:
        ValueError: if a number is below 1.

    Source: Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient,
    https://doi.org/10.1145/1390156.1390290.
    """
    numbers = {"num_visible": num_visible, "num_hidden": num_hidden, "num_steps": num_steps, "num_chains": num_chains}
    for name, number in {**numbers, "sample_steps": sample_steps}.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")

    def init(key: PRNGKey, batch: Batch) -> tuple[Params, Carry]:
        weight_key, chain_key = jax.random.split(key)
        bias = base_rate_logits(batch.x)
        weights = 0.01 * jax.random.normal(weight_key, (num_visible, num_hidden))
        params = {"weights": weights, "visible_bias": bias, "hidden_bias": jnp.zeros(num_hidden)}
        if num_chains is None:
            return params, ()
        return params, _draw(chain_key, jnp.broadcast_to(bias, (num_chains, num_visible)))

    def loss(params: Params, carry: Carry, key: PRNGKey, batch: Batch) -> tuple[Array, tuple[Carry, Metrics]]:
        chain_key, bit_key = jax.random.split(key)
        start = batch.x if num_chains is None else carry
        constant = jax.lax.stop_gradient(params)
        chains = sample_from(constant, chain_key, start, num_steps)
        energy_data, energy_chains = energy(params, batch.x).mean(), energy(params, chains).mean()
        pseudo = pseudo_log_prob(constant, bit_key, batch.x).mean()
        metrics = {"pseudo_log_prob": pseudo, "energy_data": energy_data, "energy_chains": energy_chains}
        return energy_data - energy_chains, (() if num_chains is None else chains, metrics)

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Visible:
        del cond
        start_key, chain_key = jax.random.split(key)
        noise = _draw(start_key, jnp.zeros((num, num_visible)))
        return sample_from(params, chain_key, noise, sample_steps)

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        energy=energy,
        encode=encode,
        decode=decode,
        carry_spec=PartitionSpec() if num_chains is None else PartitionSpec(DATA_AXIS),
    )
