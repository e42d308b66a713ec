"""Standard errors of statistics that are no means, by leaving out groups of examples.

With a statistic t of two sets, t_i its value without the i-th of g groups of rows of both:

    (1)  standard error = sqrt((g - 1) / g sum (t_i - mean t)^2)

A bootstrap repeats rows, which biases distances between distributions; the jackknife does not.

Source: The Jackknife, the Bootstrap and Other Resampling Plans, https://doi.org/10.1137/1.9781611970319.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.metrics.likelihood import Estimate
from jaxgen.types import Scalar

__all__ = ["jackknife"]

Features = Float[Array, "n d"]
Other = Float[Array, "m d"]


def _without(x: Features, group: Scalar, size: int) -> Float[Array, "k d"]:
    """All rows but `size` of them from row `group * size` on; the shape does not depend on the group."""
    kept = jnp.arange(x.shape[0] - size)
    return x[jnp.where(kept < group * size, kept, kept + size)]


def jackknife(
    statistic: Callable[[Features, Other], Scalar], x: Features, y: Other, *, num_groups: int = 10
) -> Estimate:
    """A statistic of two sets of features with its standard error (1).

    Args:
        statistic: `(x [n, d], y [m, d]) -> scalar`, smooth in the rows.
        x: features `[n, d]`, in random order.
        y: features `[m, d]`, in random order.
        num_groups: g, between 2 and the number of rows of the smaller set.

    Returns:
        The statistic of all rows and its standard error.

    Raises:
        ValueError: if `num_groups` is out of range.
    """
    if not 2 <= num_groups <= min(x.shape[0], y.shape[0]):
        raise ValueError(
            f"num_groups must be at least 2 and at most the number of examples, got {num_groups} for {x.shape[0]} and "
            f"{y.shape[0]}"
        )
    sizes = x.shape[0] // num_groups, y.shape[0] // num_groups
    left_out = jax.lax.map(
        lambda group: statistic(_without(x, group, sizes[0]), _without(y, group, sizes[1])), jnp.arange(num_groups)
    )
    spread = ((left_out - left_out.mean()) ** 2).sum()
    return Estimate(statistic(x, y), jnp.sqrt(spread * (num_groups - 1) / num_groups))
