r"""Spectral normalisation: kernels whose largest singular value is at most a limit, as a function of parameter trees.

    (1)  W' = W min(1, limit / sigma),  sigma = max |W^T u| over unit vectors u
    (2)  v <- W^T u / |W^T u|,  u <- W v / |W v|,  sigma ~ u^T W v        power iteration, from below

A chain of dense layers with such kernels and activations of slope at most 1 has Lipschitz constant at most
limit^(number of layers).

Sources: Spectral Normalization for Generative Adversarial Networks, https://arxiv.org/abs/1802.05957; Regularisation of
Neural Networks by Enforcing Lipschitz Continuity, https://arxiv.org/abs/1804.04368, for the minimum in (1).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float

from jaxgen.types import Params, PRNGKey, Scalar

__all__ = ["exact_norms", "limited", "lip_swish", "norms", "power_iteration", "start_vectors"]

Kernels = dict[str, Any]


def lip_swish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Swish of slope at most 1: x sigmoid(x) / 1.1, https://arxiv.org/abs/1906.02735."""
    return jax.nn.silu(x) / 1.1


def _kernels(params: Params) -> Kernels:
    """Leaves called `kernel`, `[..., a, b]`, by their path; further axes in front are layers of a loop."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return {name: leaf for name, leaf in flat.items() if name.split("/")[-1] == "kernel"}


def start_vectors(key: PRNGKey, params: Params) -> Kernels:
    """A random unit vector u `[..., b]` for every kernel, by its path."""
    kernels = _kernels(params)
    keys = jax.random.split(key, max(len(kernels), 1))
    shapes = [(*kernel.shape[:-2], kernel.shape[-1]) for kernel in kernels.values()]
    draws = [_unit(jax.random.normal(key, shape)) for key, shape in zip(keys, shapes, strict=False)]
    return dict(zip(kernels, draws, strict=True))


def power_iteration(params: Params, vectors: Kernels, num: int = 1) -> Kernels:
    """`num` iterations (2); no derivative goes through them."""
    kernels = jax.lax.stop_gradient(_kernels(params))

    def once(_: Any, vectors: Kernels) -> Kernels:
        return {name: _unit(_right(kernel, _unit(_left(kernel, vectors[name])))) for name, kernel in kernels.items()}

    return jax.lax.fori_loop(0, num, once, jax.lax.stop_gradient(vectors))


def norms(params: Params, vectors: Kernels) -> Kernels:
    """The estimate of sigma in (2) for every kernel; its derivative is with respect to the kernel alone."""
    found = {}
    for name, kernel in _kernels(params).items():
        u = jax.lax.stop_gradient(vectors[name])
        v = jax.lax.stop_gradient(_unit(_left(kernel, u)))
        found[name] = (_right(kernel, v) * u).sum(-1)
    return found


def exact_norms(params: Params) -> Kernels:
    """Sigma of every kernel, by its singular values."""
    return {name: jnp.linalg.svd(kernel, compute_uv=False)[..., 0] for name, kernel in _kernels(params).items()}


def limited(params: Params, limit: Scalar, norms_of: Callable[[Params], Kernels] = exact_norms) -> Params:
    """The parameters with every kernel scaled by (1).

    Args:
        params: nested dictionaries of arrays.
        limit: largest singular value of a kernel.
        norms_of: `params -> sigma` by path, exact or estimated.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for name, sigma in norms_of(params).items():
        flat[name] = flat[name] / jnp.maximum(1.0, sigma / limit)[..., None, None]
    return traverse_util.unflatten_dict(flat, sep="/")


def _unit(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)


def _left(kernel: Float[Array, "... a b"], u: Float[Array, "... b"]) -> Float[Array, "... a"]:
    return jnp.einsum("...ab,...b->...a", kernel, u)


def _right(kernel: Float[Array, "... a b"], v: Float[Array, "... a"]) -> Float[Array, "... b"]:
    return jnp.einsum("...ab,...a->...b", kernel, v)
