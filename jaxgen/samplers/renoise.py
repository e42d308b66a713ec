r"""Sampling with a consistency function: one step to the data, noise again, another step, and so on.

    (1)  x = f(x_t, t), the end of the flow through x_t
    (2)  x_s ~ q(x_s | x_tmin = alpha x), which is alpha_s (x + sqrt(n_s^2 - n_0^2) z),  z ~ N(0, I),  n = sigma / alpha

At s = t_min no noise is added, so that the last step ends on f. With f(x_t, t) replaced by what is known, wherever it
is known, the same steps fill in the rest.

Source: Consistency Models, https://arxiv.org/abs/2303.01469, algorithms 1 and 4.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxgen.paths import Path, Time
from jaxgen.samplers import generate
from jaxgen.samplers.loop import Denoiser, State, Stepper, memoryless
from jaxgen.samplers.moves import diffuse
from jaxgen.types import Cond, Data, Params, PRNGKey

__all__ = ["keeping", "renoise", "renoised", "single_step"]


def _step(denoise: Denoiser, path: Path, key: PRNGKey, x_t: Data, t: Time, s: Time) -> Data:
    """(1) and (2)."""
    return diffuse(path, key, path.alpha(path.t_min) * denoise(x_t, t), path.t_min, s)


def renoise() -> Stepper:
    """One evaluation of a consistency function, in the place of the denoiser, per step; stochastic but for the last.

    Source: Consistency Models, https://arxiv.org/abs/2303.01469, algorithm 1.
    """
    return memoryless(_step, num_evaluations=1)


def renoised(
    function: Callable[[Any, Any], Denoiser],
    path: Path,
    shape: Sequence[int],
    grid: Callable[[Path, int], Any],
    num_steps: int,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`sample`, and `decode` by one step from latents N(0, I), of a model with a consistency function.

    Args:
        function: `(params, cond) -> f`, with f of (1).
        path: the noise path.
        shape: shape of one example.
        grid: `(path, num_steps) -> times` of samples, falling.
        num_steps: evaluations of f for each sample.
    """

    def sample(params: Params, key: PRNGKey, num: int, cond: Cond = None) -> Data:
        f = function(params, cond)
        return generate.generate(renoise(), f, path, key, (num, *shape), grid(path, num_steps))

    def decode(params: Params, latent: Data, cond: Cond = None) -> Data:
        return function(params, cond)(path.sigma(path.t_max) * latent, path.t_max)

    return sample, decode


def keeping(denoise: Denoiser, known: Data, mask: Bool[Array, "..."]) -> Denoiser:
    """A denoiser or consistency function whose result is replaced by what is known of the data.

    Args:
        denoise: `(x_t, t) -> x0`.
        known: data `[n, ...]`; only what the mask marks is used.
        mask: true where `known` holds, of a shape that broadcasts with it.

    Returns:
        `(x_t, t) -> x0`; with `renoise` it fills in the rest without any training.

    Source: https://arxiv.org/abs/2303.01469, algorithm 4.
    """
    return lambda x_t, t: jnp.where(mask, known, denoise(x_t, t))


def single_step(stepper: Stepper, denoise: Any, path: Path, x: Data, t: Time, s: Time, cond: Cond = None) -> Data:
    """One step of a deterministic stepper, with an interval of its own for each example.

    Args:
        stepper: how to take the step; one with a memory takes its first.
        denoise: `(x_t, t, cond) -> x0`, of a batch at one time.
        path: the noise path.
        x: x_t `[n, ...]`.
        t: where each example is, `[n]`.
        s: where it goes, `[n]`.
        cond: `[n, ...]` or `None`.

    Returns:
        x_s `[n, ...]`.
    """

    def one(x: Any, t: Any, s: Any, cond: Any) -> Any:
        cond = jax.tree.map(lambda leaf: leaf[None], cond)
        state = State(x[None], stepper.init(x[None]))
        return stepper.step(lambda x, t: denoise(x, t, cond), path, jax.random.key(0), state, t, s).x[0]

    return jax.vmap(one)(x, t, s, cond)
