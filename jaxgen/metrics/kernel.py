r"""Kernel distances: the squared maximum mean discrepancy between two sets of features.

    (1)  MMD^2 = 1/(n (n-1)) sum_{i != j} k(x_i, x_j) + 1/(m (m-1)) sum_{i != j} k(y_i, y_j)
                 - 2/(n m) sum_{i, j} k(x_i, y_j)
    (2)  polynomial:  k(x, y) = (x . y / d + 1)^degree       (the kernel of the KID, degree 3)
    (3)  Gaussian:    k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2))

(1) is unbiased: its expectation does not depend on n and m, and is 0 for equal distributions (so that a single value
may be negative). Averaged over B disjoint blocks of rows, which are independent, it stays unbiased, costs memory of
one block, and has the standard error of a mean of B numbers.

Source: A Kernel Two-Sample Test, https://jmlr.org/papers/v13/gretton12a.html; Demystifying MMD GANs,
https://arxiv.org/abs/1801.01401.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.metrics.likelihood import Estimate, mean_with_error
from jaxgen.types import Scalar

__all__ = ["block_squared_mmd", "gaussian_kernel", "polynomial_kernel", "squared_mmd"]

Features = Float[Array, "n d"]
Other = Float[Array, "m d"]
Kernel = Callable[[Features, Other], Float[Array, "n m"]]


def polynomial_kernel(*, degree: int = 3) -> Kernel:
    """The kernel (2).

    Args:
        degree: exponent, at least 1.

    Returns:
        `(x [n, d], y [m, d]) -> [n, m]`.

    Raises:
        ValueError: if `degree` is below 1.
    """
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    return lambda x, y: (x @ y.T / x.shape[1] + 1) ** degree


def gaussian_kernel(*, bandwidth: Scalar) -> Kernel:
    """The kernel (3).

    Args:
        bandwidth: standard deviation of the Gaussian, in units of the features; may be traced.

    Returns:
        `(x [n, d], y [m, d]) -> [n, m]`.

    Raises:
        ValueError: if `bandwidth` is a Python number that is not positive.
    """
    if isinstance(bandwidth, int | float) and bandwidth <= 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")

    def kernel(x: Features, y: Other) -> Float[Array, "n m"]:
        squared = jax.vmap(lambda row: ((row - y) ** 2).sum(-1))(x)
        return jnp.exp(-squared / (2 * bandwidth**2))

    return kernel


def _off_diagonal_mean(gram: Float[Array, "n n"]) -> Scalar:
    n = gram.shape[0]
    return (gram.sum() - jnp.trace(gram)) / (n * (n - 1))


def squared_mmd(kernel: Kernel, x: Features, y: Other) -> Scalar:
    """The unbiased estimate (1); memory grows with n m.

    Args:
        kernel: `(x [n, d], y [m, d]) -> [n, m]`.
        x: features `[n, d]`, n >= 2.
        y: features `[m, d]`, m >= 2.

    Returns:
        MMD^2, in the unit of the kernel.

    Raises:
        ValueError: if a set has fewer than two examples.
    """
    if min(x.shape[0], y.shape[0]) < 2:
        raise ValueError(f"squared_mmd needs at least 2 examples in each set, got {x.shape[0]} and {y.shape[0]}")
    return _off_diagonal_mean(kernel(x, x)) + _off_diagonal_mean(kernel(y, y)) - 2 * kernel(x, y).mean()


def block_squared_mmd(kernel: Kernel, x: Features, y: Other, *, block_size: int) -> Estimate:
    """The mean of (1) over disjoint blocks of rows, with its standard error.

    Args:
        kernel: `(x [n, d], y [m, d]) -> [n, m]`.
        x: features `[n, d]`, in random order.
        y: features `[m, d]`, in random order.
        block_size: rows per block, at least 2; rows beyond the last whole block of the smaller set are not used.

    Returns:
        Mean and standard error over B = min(n, m) // block_size blocks.

    Raises:
        ValueError: if `block_size` is below 2 or gives fewer than two blocks.
    """
    num_blocks = min(x.shape[0], y.shape[0]) // max(block_size, 1)
    if block_size < 2 or num_blocks < 2:
        raise ValueError(
            f"block_size must be at least 2 and give at least 2 blocks, got {block_size} for {x.shape[0]} and "
            f"{y.shape[0]} examples"
        )
    blocks = [a[: num_blocks * block_size].reshape(num_blocks, block_size, -1) for a in (x, y)]
    return mean_with_error(jax.lax.map(lambda pair: squared_mmd(kernel, *pair), tuple(blocks)))
