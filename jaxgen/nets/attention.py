r"""Attention, in the form that the platform runs best.

Queries q_i, keys k_j and values v_j of d features give, with the maximum m_i over the keys that position i may see,

    e_ij = exp(q_i . k_j / sqrt d - m_i),      o_i = sum_j e_ij v_j / sum_j e_ij.                 (1)

On a GPU or TPU this is `jax.nn.dot_product_attention`. On an NVIDIA GPU it has a fused kernel, which never writes the
weights of all pairs down, but for 16-bit numbers alone and without forward-mode derivatives; `attend_fused` takes it
where it can. XLA:CPU has none, and there three things count. Heads come before positions, and with the examples are one
axis, so that each product of (1) and of its derivatives reads what it is given as it lies. The sum divides the output,
not the weights, so that no pass over all pairs of positions is made for it, nor for its derivative. And causal
attention goes block by block of queries, each over the keys up to its own end alone. Of a single query, as in a
decoding step, the products are of a vector and of what a cache holds. Examples and heads stay two axes for it, and
`jax.lax.optimization_barrier` keeps the products apart from the writing of the cache: for a single example, XLA:CPU
would otherwise copy the whole cache at every step.

Source: Attention Is All You Need, https://arxiv.org/abs/1706.03762; dividing last is from FlashAttention-2,
https://arxiv.org/abs/2307.08691.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["attend", "attend_fused", "attend_on_cpu", "fits_kernel"]

Heads = Float[Array, "n _ heads d"]
Rows = Float[Array, "b _ d"]
Mask = Bool[Array, "#n #heads #q #k"]

BLOCK, MOST_BLOCKS = 64, 8
"""Causal attention takes blocks of 64 queries, or longer ones so that there are at most 8, each compiled for itself."""


def attend(query: Heads, key: Heads, value: Heads, *, mask: Mask | None = None, is_causal: bool = False) -> Heads:
    """(1): `jax.nn.dot_product_attention`, or, compiled for a CPU, `attend_on_cpu`.

    Args:
        query: `[n, q, heads, d]`.
        key: `[n, k, heads, d]`.
        value: `[n, k, heads, d]`.
        mask: which keys a query may see, `[n, heads, q, k]` or 1 in place of any of them; all if not given.
        is_causal: query i may see keys 0, ..., i only.

    Returns:
        `[n, q, heads, d]`.
    """
    cpu, default = (
        functools.partial(_masked, form, is_causal=is_causal) for form in (attend_on_cpu, jax.nn.dot_product_attention)
    )
    return jax.lax.platform_dependent(query, key, value, mask, cpu=cpu, default=default)


def fits_kernel(query: Heads) -> bool:
    """Whether cuDNN's kernel takes these queries: several, of 16 bits, with at most 128 features, in eights."""
    features = query.shape[-1]
    return query.shape[1] > 1 and query.dtype in (jnp.bfloat16, jnp.float16) and features <= 128 and features % 8 == 0


def attend_fused(query: Heads, key: Heads, value: Heads, *, mask: Mask | None = None, is_causal: bool = False) -> Heads:
    """(1) by the fused kernel of an NVIDIA GPU, or, for queries that it does not take, by `attend`.

    With the kernel there are reverse-mode derivatives only, which training by gradients needs, and not the forward-mode
    ones of MeanFlow and sCM. Without such a GPU it cannot be traced. The arguments are those of `attend`.
    """
    num, seen = query.shape[1], key.shape[1]
    if not fits_kernel(query):
        return attend(query, key, value, mask=mask, is_causal=is_causal)
    fused = functools.partial(jax.nn.dot_product_attention, mask=mask, is_causal=is_causal, implementation="cudnn")
    if num % 2 == 0 and seen % 2 == 0:
        return fused(query, key, value)
    if is_causal and num == seen and mask is None:  # in training the kernel takes even lengths only
        return _with_one_more(fused, query, key, value)
    return attend(query, key, value, mask=mask, is_causal=is_causal)


def _with_one_more(causal: Callable[..., Any], *qkv: Heads) -> Heads:
    """Causal attention of one position more, which none of those before it sees, less that position."""
    return causal(*(jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in qkv))[:, :-1]


def _masked(form: Callable[..., Any], query: Heads, key: Heads, value: Heads, mask: Any, *, is_causal: bool) -> Heads:
    return form(query, key, value, mask=mask, is_causal=is_causal)


def attend_on_cpu(
    query: Heads, key: Heads, value: Heads, *, mask: Mask | None = None, is_causal: bool = False
) -> Heads:
    """(1), as XLA:CPU runs it best; see `attend`."""
    n, num, heads, d = query.shape
    if num == 1 and not is_causal:
        q, k, v = (x.swapaxes(1, 2) for x in (query / math.sqrt(d), key, value))
        k, v = jax.lax.optimization_barrier((k, v))
        return _mix(q, k, v, mask).swapaxes(1, 2)
    q, k, v = (_rows(x) for x in (query / math.sqrt(d), key, value))
    if mask is not None:
        mask = jnp.broadcast_to(mask, (n, heads, num, key.shape[1])).reshape(n * heads, num, -1)
    mixed = _causal(q, k[:, :num], v[:, :num], mask) if is_causal else _mix(q, k, v, mask)
    return mixed.reshape(n, heads, num, -1).swapaxes(1, 2)


def _causal(q: Rows, k: Rows, v: Rows, mask: Any) -> Rows:
    """(1), block by block of queries, each over the blocks of keys up to its own.

    `k` and `v` are split, and the blocks that are seen put together again: XLA makes one slice of that, and its
    derivative puts together sums of blocks, where that of a slice is padded, and sums of padded arrays are slow.
    """
    num = q.shape[1]
    size = max(BLOCK, -(-num // MOST_BLOCKS))
    queries, keys, values = (jnp.split(x, list(range(size, x.shape[1], size)), axis=1) for x in (q, k, v))
    parts = []
    for i, part in enumerate(queries):
        start, stop = i * size, i * size + part.shape[1]
        seen_keys, seen_values = (jnp.concatenate(blocks[: i + 1], 1) for blocks in (keys, values))
        seen = seen_keys.shape[1]
        may_see = jnp.arange(seen) <= jnp.arange(start, stop)[:, None]
        if mask is not None:
            may_see = may_see & mask[:, start:stop, :seen]
        parts.append(_mix(part, seen_keys, seen_values, may_see))
    return jnp.concatenate(parts, 1)


def _rows(x: Heads) -> Rows:
    """Heads before positions, and one axis with the examples."""
    return x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _mix(q: Any, k: Any, v: Any, may_see: Any) -> Any:
    """(1) for scaled queries `[..., q, d]` and keys `[..., k, d]`; where one may see nothing, the mean of values."""
    batch = (tuple(range(q.ndim - 2)),) * 2
    product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
    logits = product(q, k, (((q.ndim - 1,), (q.ndim - 1,)), batch))
    if may_see is not None:
        logits = jnp.where(may_see, logits, -0.7 * float(jnp.finfo(logits.dtype).max))
    e = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    total = product(e.astype(v.dtype), v, (((q.ndim - 1,), (q.ndim - 2,)), batch))
    return (total / e.sum(-1, keepdims=True)).astype(v.dtype)
