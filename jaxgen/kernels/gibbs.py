r"""Block Gibbs sampling of a pair (x, z), of which x is the state.

    (1)  z ~ p(z | x),   x' ~ p(x' | z)

Each half leaves p(x, z) invariant, so the whole leaves p(x) = sum_z p(x, z) invariant.

Source: Stochastic Relaxation, Gibbs Distributions, and the Bayesian Restoration of Images, Geman and Geman, 1984,
https://doi.org/10.1109/TPAMI.1984.4767596.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxgen.kernels.kernel import Kernel
from jaxgen.types import PRNGKey

__all__ = ["GibbsInfo", "GibbsState", "gibbs", "init", "step"]


class GibbsState(NamedTuple):
    """State of the chains.

    Attributes:
        position: x.
    """

    position: Any


class GibbsInfo(NamedTuple):
    """What a step saw.

    Attributes:
        latent: z, given which the new x was drawn.
    """

    latent: Any


def init(position: Any) -> GibbsState:
    """State of chains that stand at `position`."""
    return GibbsState(position)


def step(
    key: PRNGKey,
    state: GibbsState,
    sample_latent: Callable[[PRNGKey, Any], Any],
    sample_position: Callable[[PRNGKey, Any], Any],
) -> tuple[GibbsState, GibbsInfo]:
    """One transition, by (1)."""
    latent_key, position_key = jax.random.split(key)
    latent = sample_latent(latent_key, state.position)
    return GibbsState(sample_position(position_key, latent)), GibbsInfo(latent)


def gibbs(sample_latent: Callable[[PRNGKey, Any], Any], sample_position: Callable[[PRNGKey, Any], Any]) -> Kernel:
    """Builds the kernel from the two conditionals.

    Args:
        sample_latent: `(key, x) -> z`, a draw from p(z | x).
        sample_position: `(key, z) -> x`, a draw from p(x | z), of the type and shape of x.

    Returns:
        A `Kernel` with `GibbsState` and `GibbsInfo`.
    """
    return Kernel(init, lambda key, state: step(key, state, sample_latent, sample_position))
