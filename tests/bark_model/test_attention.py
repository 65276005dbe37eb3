"""Attention: every platform's way gives the plain formula, and a row's result is its own to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bark_model import attention

WAYS = {"cpu": attention._head_by_head, "whole": attention._whole}
CACHE_WAYS = {
    "blocks": lambda *arrays, dtype: attention._cache_in_blocks(*arrays, dtype=dtype, compute=jnp.float32),
    "blocks in the cache's dtype": lambda *arrays, dtype: attention._cache_in_blocks(
        *arrays, dtype=dtype, compute=dtype
    ),
    "at once": attention._cache_at_once,
}
TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2, "float16": 3e-3}


def drawn(seed: int, *shape: int, dtype="float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32), dtype)


def plain(query, key, value, visible) -> np.ndarray:
    """softmax(q k^T / sqrt(H)) v in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    scores = np.where(visible, query @ np.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1]), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [1, 128, 300])
def test_whole_sequences(way, causal, dtype, length):
    arrays = [drawn(seed, 2, 3, length, 16, dtype=dtype) for seed in range(3)]
    visible = np.tri(length, dtype=bool) if causal else True
    found = WAYS[way](*arrays, causal=causal)
    assert found.dtype == arrays[0].dtype
    np.testing.assert_allclose(np.asarray(found, np.float32), plain(*arrays, visible), atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("way", CACHE_WAYS)
def test_one_query_over_a_cache(way, dtype):
    """Places in the first block, at its end, at the next one's begin, and at the end of the cache."""
    place = np.array([0, 5, 127, 128, 383])
    query = drawn(0, 5, 3, 16, dtype=dtype)
    keys, values = (drawn(seed, 5, 3, 384, 16, dtype=dtype) for seed in (1, 2))
    visible = (np.arange(384) <= place[:, None])[:, None, None]
    expected = plain(query[:, :, None], keys, values, visible)[:, :, 0]
    found = CACHE_WAYS[way](query, attention.pack(keys), attention.pack(values), place, dtype=dtype)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_neighbour_further_on_changes_no_bit(dtype):
    """The blocks that only a neighbour has reached are read for all rows, and add exactly nothing."""
    query = drawn(0, 3, 2, 16, dtype=dtype)
    keys, values = (attention.pack(drawn(seed, 3, 2, 256, 16, dtype=dtype)) for seed in (1, 2))
    together = jax.jit(lambda place: attention.attend_cache(query, keys, values, place, dtype))
    near, far = together(np.array([10, 70, 70])), together(np.array([10, 70, 255]))
    assert np.array_equal(near[:2], far[:2])
    assert not np.array_equal(near[2], far[2])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_packing_keeps_every_bit(dtype):
    x = jnp.concatenate([drawn(0, 1000, dtype=dtype), jnp.asarray([0.0, -0.0, jnp.inf, -jnp.inf], dtype)])
    packed = attention.pack(x)
    assert packed.dtype == (jnp.float32 if dtype == "float32" else jnp.uint16)
    assert np.array_equal(np.asarray(attention.unpack(packed, dtype)), np.asarray(x))


def test_caches_hold_whole_blocks():
    assert [attention.cache_positions(n) for n in (1, 128, 129, 947)] == [128, 128, 256, 1024]
