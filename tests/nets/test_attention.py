"""Attention for a CPU equals `jax.nn.dot_product_attention`: values and both kinds of derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nets import attention
from jaxgen.nets.attention import BLOCK, MOST_BLOCKS, attend, attend_fused, attend_on_cpu, fits_kernel

CASES = {
    "all": ((2, 20, 3, 8), 20, False, False),
    "other keys": ((2, 20, 3, 8), 33, False, False),
    "mask": ((3, 20, 2, 8), 33, True, False),
    "causal": ((2, 20, 3, 8), 20, False, True),
    "causal, blocks and a rest": ((2, 2 * BLOCK + 5, 2, 4), 2 * BLOCK + 5, False, True),
    "causal, longer blocks": ((1, MOST_BLOCKS * BLOCK + 9, 1, 4), MOST_BLOCKS * BLOCK + 9, False, True),
    "causal and mask": ((2, BLOCK + 7, 2, 4), BLOCK + 7, True, True),
    "one query": ((2, 1, 3, 8), 20, True, False),
    "one query of one example": ((1, 1, 3, 8), 20, True, False),
    "one query, causal": ((2, 1, 3, 8), 20, False, True),
}


def inputs(shape, num_keys, *, masked, dtype=jnp.float32):
    n, num, heads, d = shape
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (
        jax.random.normal(key, (n, t, heads, d), dtype) for key, t in zip(keys, (num, num_keys, num_keys), strict=False)
    )
    mask = jax.random.bernoulli(keys[3], 0.6, (n, 1, num, num_keys)).at[:, :, -1].set(False) if masked else None
    return (q, k, v), mask


@pytest.mark.parametrize("form", [attend, attend_on_cpu, attend_fused])
@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_are_those_of_jax(case, form):
    shape, num_keys, masked, is_causal = CASES[case]
    qkv, mask = inputs(shape, num_keys, masked=masked)
    tangents = tuple(jnp.roll(x, 1, 0) + 0.1 for x in qkv)

    def both_derivatives(attention):
        def of(q, k, v):
            return attention(q, k, v, mask=mask, is_causal=is_causal)

        out, change = jax.jvp(of, qkv, tangents)
        return out, change, jax.vjp(of, *qkv)[1](jnp.cos(out))

    ours, theirs = (jax.jit(both_derivatives, static_argnums=0)(f) for f in (form, jax.nn.dot_product_attention))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), ours, theirs)


def test_a_query_that_may_see_nothing_gets_the_mean():
    qkv, mask = inputs((2, 20, 2, 4), 20, masked=True)
    ours = attend(*qkv, mask=mask.at[:, :, 3].set(False))
    np.testing.assert_allclose(ours[:, 3], qkv[2].mean(1), atol=1e-6)


def test_halves_are_summed_in_float32():
    qkv, _ = inputs((2, 90, 2, 8), 90, masked=False, dtype=jnp.bfloat16)
    exact = jax.nn.dot_product_attention(*(x.astype(jnp.float32) for x in qkv), is_causal=True)
    ours = attend(*qkv, is_causal=True)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=0.03, atol=0.03)


def test_later_blocks_are_not_read():
    (q, k, v), _ = inputs((1, 2 * BLOCK, 1, 4), 2 * BLOCK, masked=False)
    ours = attend(q, k.at[:, BLOCK:].set(jnp.nan), v.at[:, BLOCK:].set(jnp.nan), is_causal=True)
    np.testing.assert_array_equal(ours[:, :BLOCK], attend(q, k, v, is_causal=True)[:, :BLOCK])


@pytest.mark.parametrize(
    ("num", "num_features", "dtype", "fits"),
    [
        (4, 64, "bfloat16", True),
        (4, 128, "float16", True),
        (4, 256, "bfloat16", False),
        (4, 64, "float32", False),
        (4, 36, "bfloat16", False),
        (1, 64, "bfloat16", False),
    ],
)
def test_the_fused_kernel_is_of_several_queries_16_bits_and_small_heads(num, num_features, dtype, fits):
    assert fits_kernel(jnp.zeros((1, num, 2, num_features), dtype)) == fits


@pytest.mark.parametrize(
    ("lengths", "is_causal", "asked"), [((6, 6), True, 6), ((7, 7), True, 8), ((6, 6), False, 6), ((7, 7), False, None)]
)
def test_odd_lengths_never_reach_the_fused_kernel(monkeypatch, lengths, is_causal, asked):
    """A kernel that refuses them, as cuDNN's does in training, and is otherwise the plain form."""
    lengths_asked = []

    def kernel(query, key, value, *, mask, is_causal, implementation):
        assert implementation == "cudnn"
        assert query.shape[1] % 2 == key.shape[1] % 2 == 0
        lengths_asked.append(query.shape[1])
        return attend_on_cpu(query, key, value, mask=mask, is_causal=is_causal)

    qkv, _ = inputs((2, lengths[0], 2, 8), lengths[1], masked=False, dtype=jnp.bfloat16)
    expected = attend_on_cpu(*qkv, is_causal=is_causal)
    monkeypatch.setattr(attention.jax.nn, "dot_product_attention", kernel)
    np.testing.assert_array_equal(attend_fused(*qkv, is_causal=is_causal), expected)
    assert lengths_asked == ([asked] if asked else [])
