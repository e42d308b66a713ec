r"""Densities on the plane that can be sampled and whose logarithm is known exactly.

    (1)  mixture:        p(x) = 1/K sum_k N(x; c_k, s^2 I)
    (2)  noisy circle:   x = R (cos a, sin a) + s e, with a uniform and e ~ N(0, I), has
                         p(x) = exp(-(r^2 + R^2) / (2 s^2)) I_0(r R / s^2) / (2 pi s^2),  r = |x|
    (3)  checkerboard:   1/32 on the 8 dark ones of the 16 squares of side 2 in [-4, 4)^2, else 0
    (4)  swirl:          y = rotation of x by the angle a(|x|) keeps areas, so p_y(y) = p_x(x)

`eight_gaussians` and `two_moons` are (1), the latter with its centres close together along two half circles; `rings` is
a mixture of (2); `pinwheel` is (4) of five elongated Gaussians that point outwards.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.data.records import Dataset, Split, hold_out
from jaxgen.types import PerExample, PRNGKey

__all__ = ["DENSITIES", "Density", "checkerboard", "dataset", "eight_gaussians", "pinwheel", "rings", "two_moons"]

Points = Float[Array, "n 2"]

_NUM_TRAIN, _NUM_VALID, _NUM_TEST = 50000, 5000, 10000


class Density(NamedTuple):
    """A density on the plane.

    Attributes:
        sample: `(key, num) -> x [num, 2]`.
        log_prob: `x [n, 2] -> [n]`, exact, in nats; -inf where the density is 0.
    """

    sample: Callable[[PRNGKey, int], Points]
    log_prob: Callable[[Points], PerExample]


def _normal(x: Float[Array, "... 2"], scales: Float[Array, "... 2"]) -> Float[Array, "..."]:
    """The logarithm of N(x; 0, diag(scales^2))."""
    return jax.scipy.stats.norm.logpdf(x, scale=scales).sum(-1)


def _log_mean_exp(terms: Float[Array, "n k"]) -> PerExample:
    return jax.nn.logsumexp(terms, axis=-1) - jnp.log(terms.shape[-1])


def _mixture(centres: Callable[[], Float[Array, "k 2"]], scale: float) -> Density:
    """Equal round Gaussians, (1)."""

    def sample(key: PRNGKey, num: int) -> Points:
        centre_key, noise_key = jax.random.split(key)
        return jax.random.choice(centre_key, centres(), (num,)) + scale * jax.random.normal(noise_key, (num, 2))

    return Density(sample, lambda x: _log_mean_exp(_normal(x[:, None] - centres(), jnp.full(2, scale))))


def _on_circle(angle: Float[Array, "..."]) -> Float[Array, "... 2"]:
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def eight_gaussians(*, radius: float = 3.0, scale: float = 0.3) -> Density:
    """Eight Gaussians of standard deviation `scale`, evenly on a circle of `radius`."""
    return _mixture(lambda: radius * _on_circle(jnp.arange(8) * (jnp.pi / 4)), scale)


def two_moons(*, scale: float = 0.2, num_centres: int = 64) -> Density:
    """Two interleaved half circles of radius 2, each of `num_centres` Gaussians of standard deviation `scale`."""

    def centres() -> Float[Array, "k 2"]:
        arc = 2 * _on_circle(jnp.linspace(0, jnp.pi, num_centres))
        return jnp.concatenate([arc + jnp.array([-1, -0.5]), jnp.array([1, 0.5]) - arc])

    return _mixture(centres, scale)


def rings(*, radii: tuple[float, ...] = (1.0, 2.0, 3.0), scale: float = 0.1) -> Density:
    """Equally likely circles about the origin with Gaussian noise, (2)."""

    def sample(key: PRNGKey, num: int) -> Points:
        radius_key, angle_key, noise_key = jax.random.split(key, 3)
        radius = jax.random.choice(radius_key, jnp.array(radii), (num, 1))
        angle = jax.random.uniform(angle_key, (num,), maxval=2 * jnp.pi)
        return radius * _on_circle(angle) + scale * jax.random.normal(noise_key, (num, 2))

    def log_prob(x: Points) -> PerExample:
        r, radius = jnp.linalg.norm(x, axis=-1, keepdims=True), jnp.array(radii)
        log_bessel = jnp.log(jax.scipy.special.i0e(r * radius / scale**2))
        return _log_mean_exp(log_bessel - 0.5 * ((r - radius) / scale) ** 2 - jnp.log(2 * jnp.pi * scale**2))

    return Density(sample, log_prob)


def checkerboard() -> Density:
    """Uniform on the dark squares, (3)."""

    def sample(key: PRNGKey, num: int) -> Points:
        square_key, place_key = jax.random.split(key)
        row, pair = jnp.divmod(jax.random.randint(square_key, (num,), 0, 8), 2)
        corner = jnp.stack([2 * pair + row % 2, row], axis=-1)
        return 2.0 * (corner - 2) + jax.random.uniform(place_key, (num, 2), maxval=2.0)

    def log_prob(x: Points) -> PerExample:
        square = jnp.floor(x / 2)
        dark = (square.sum(-1) % 2 == 0) & jnp.all(jnp.abs(square + 0.5) < 2, axis=-1)
        return jnp.where(dark, -jnp.log(32.0), -jnp.inf)

    return Density(sample, log_prob)


def _rotate(x: Float[Array, "... 2"], angle: Float[Array, "..."]) -> Float[Array, "... 2"]:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], axis=-1)


def pinwheel(*, num_arms: int = 5, radius: float = 2.0, swirl: float = 0.6) -> Density:
    """Arms of standard deviations 0.6 along and 0.2 across, at `radius`, turned by `swirl` |x| radians, (4)."""

    def arms() -> Float[Array, " k"]:
        return jnp.arange(num_arms) * (2 * jnp.pi / num_arms)

    def turn(x: Points) -> PerExample:
        return swirl * jnp.linalg.norm(x, axis=-1)

    def sample(key: PRNGKey, num: int) -> Points:
        arm_key, noise_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (num, 2)) * jnp.array([0.6, 0.2])
        x = _rotate(noise + jnp.array([radius, 0]), jax.random.choice(arm_key, arms(), (num,)))
        return _rotate(x, turn(x))

    def log_prob(x: Points) -> PerExample:
        in_arm = _rotate(x[:, None], -turn(x)[:, None] - arms()) - jnp.array([radius, 0])
        return _log_mean_exp(_normal(in_arm, jnp.array([0.6, 0.2])))

    return Density(sample, log_prob)


DENSITIES: dict[str, Callable[[], Density]] = {
    "checkerboard": checkerboard,
    "eight_gaussians": eight_gaussians,
    "pinwheel": pinwheel,
    "rings": rings,
    "two_moons": two_moons,
}
"""Densities with a data set of their own, called toy_NAME."""


@lru_cache
def dataset(name: str) -> Dataset:
    """Draws the data set `toy_NAME` of a density in `DENSITIES`, with fixed seeds."""
    total = _NUM_TRAIN + _NUM_VALID + _NUM_TEST
    draw = jax.jit(DENSITIES[name]().sample, static_argnums=1)
    points = Split(np.asarray(draw(jax.random.key(0), total), np.float32))
    rest, test = hold_out(points, _NUM_TEST)
    train, valid = hold_out(rest, _NUM_VALID)
    protocol = (
        f"{total} points drawn from the density {name} with seed 0: train = the first {_NUM_TRAIN}, valid = the next "
        f"{_NUM_VALID}, test = the last {_NUM_TEST}"
    )
    return Dataset(f"toy_{name}", train, valid, test, num_levels=0, num_classes=0, protocol=protocol)
