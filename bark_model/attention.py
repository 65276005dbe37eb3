"""Attention: over whole sequences, and of one new token over a KV cache. No other module knows a platform's way.

The softmax is float32 everywhere. A row's result never depends on the rows beside it: on every path its sums run
over the same positions in the same order, and what is masked or left out would have added exactly 0.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from bark_model import cpu_kernels

LOWEST = float(jnp.finfo(jnp.float32).min)
QUERY_BLOCK = 128
"""Queries of a causal sequence that share one slice of keys: [1 1 0 0] and [1 1 1 1] for T 4 in blocks of 2."""
FULL_QUERY_BLOCK = 512
"""Queries of a sequence that looks at all of itself: the scores of so many fit a core's cache."""
CACHE_BLOCK = 128
"""Positions of a KV cache read at a time; caches hold whole blocks."""
CUDNN_CAPABILITY = 8.0


def attend(query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool) -> jax.Array:
    """softmax(q k^T / sqrt(H)) v over whole sequences: [B, N, T, H] each, all of one dtype; returns that dtype.

    causal: query 2 of T 4 looks at  [1 1 1 0].
    """
    if cpu_kernels.attends(query):
        return cpu_kernels.attend(query, key, value, causal=causal)
    ways = {"cpu": partial(_head_by_head, causal=causal), "default": partial(_whole, causal=causal)}
    if jax.default_backend() == "gpu" and query.dtype != jnp.float32 and _has_cudnn_attention():
        ways["cuda"] = partial(_cudnn, causal=causal)
    return jax.lax.platform_dependent(query, key, value, **ways)


def attend_cache(query: jax.Array, keys: jax.Array, values: jax.Array, place: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Attention of one query a row over a packed cache: query [S, N, H], keys and values [S, N, T, H].

    Row s looks at positions 0..place[s]; what lies behind must be finite. `dtype` is the one that was packed.
    Returns float32 [S, N, H].
    """
    if cpu_kernels.attends(query):
        return cpu_kernels.attend_cache(query, keys, values, place)
    return jax.lax.platform_dependent(
        query,
        keys,
        values,
        place,
        # A GPU asks the host at every turn of a loop: there the whole cache is read sooner than its filled part.
        cuda=partial(_cache_at_once, dtype=dtype),
        # XLA on CPU multiplies small 16-bit matrices in the end as float32, each at a time widened on its own.
        cpu=partial(_cache_in_blocks, dtype=dtype, compute=jnp.float32),
        default=partial(_cache_in_blocks, dtype=dtype, compute=dtype),
    )


def pack(x: jax.Array) -> jax.Array:
    """What a KV cache stores: 16-bit floats as their bits.

    XLA on CPU widens a bfloat16 buffer to float32 and back, all of it, at every write of one position (measured: 110
    ms a step for bark-small's caches of 8 rows). Bits it leaves alone; on other platforms the cast is free.
    """
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype.itemsize == 2 else x


def unpack(bits: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The numbers that `pack` stored, in the dtype they had."""
    return jax.lax.bitcast_convert_type(bits, dtype) if jnp.dtype(dtype).itemsize == 2 else bits


def cache_positions(positions: int) -> int:
    """`positions` rounded up to whole blocks."""
    return -(-positions // CACHE_BLOCK) * CACHE_BLOCK


def _weights(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """exp(scores - max) and its sum over the last axis: dividing after the product with v is less work."""
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights, weights.sum(axis=-1, keepdims=True)


def _whole(query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool) -> jax.Array:
    """All rows and heads at once, for compilers that tile it themselves."""
    length = query.shape[2]
    scores = jnp.einsum("bnth,bnuh->bntu", query, key, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(query.shape[-1])
    if causal:
        scores = jnp.where(jnp.tri(length, dtype=bool), scores, LOWEST)
    weights, total = _weights(scores)
    product = jnp.einsum("bntu,bnuh->bnth", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return (product / total).astype(query.dtype)


def _head_by_head(query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool) -> jax.Array:
    """For a CPU without the kernels: a block's scores fit its cache; a causal block skips the keys behind it.

    q k^T is float32 whatever the inputs: over an H of 64 a CPU's 16-bit products are no faster. Over T they are.
    """
    length, block = query.shape[2], QUERY_BLOCK if causal else FULL_QUERY_BLOCK

    def head(arrays: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        q, k, v = arrays
        q, k = q.astype(jnp.float32) / math.sqrt(q.shape[-1]), k.astype(jnp.float32)
        blocks = []
        for start in range(0, length, block):
            stop = min(start + block, length)
            seen = stop if causal else length
            scores = jnp.dot(q[start:stop], k[:seen].T)
            if causal:
                scores = jnp.where(jnp.arange(start, stop)[:, None] >= jnp.arange(seen), scores, LOWEST)
            weights, total = _weights(scores)
            product = jnp.dot(weights.astype(v.dtype), v[:seen], preferred_element_type=jnp.float32)
            blocks.append(product / total)
        return jnp.concatenate(blocks).astype(query.dtype)

    heads = tuple(x.reshape(-1, *x.shape[2:]) for x in (query, key, value))
    return jax.lax.map(head, heads).reshape(query.shape)


def _has_cudnn_attention() -> bool:
    return all(float(device.compute_capability) >= CUDNN_CAPABILITY for device in jax.local_devices())


def _cudnn(query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool) -> jax.Array:
    """cuDNN's fused attention, which wants [B, T, N, H]."""
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    return jnp.swapaxes(jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation="cudnn"), 1, 2)


def _cache_at_once(
    query: jax.Array, keys: jax.Array, values: jax.Array, place: jax.Array, *, dtype: DTypeLike
) -> jax.Array:
    keys, values = unpack(keys, dtype), unpack(values, dtype)
    scores = jnp.einsum("snh,snth->snt", query, keys, preferred_element_type=jnp.float32)
    visible = jnp.arange(keys.shape[2]) <= place[:, None, None]
    weights, total = _weights(jnp.where(visible, scores / math.sqrt(query.shape[-1]), LOWEST))
    product = jnp.einsum("snt,snth->snh", weights.astype(dtype), values, preferred_element_type=jnp.float32)
    return product / total


def _cache_in_blocks(
    query: jax.Array, keys: jax.Array, values: jax.Array, place: jax.Array, *, dtype: DTypeLike, compute: DTypeLike
) -> jax.Array:
    """Reads the blocks that any row has reached: once for the scores, once for the weighted sum.

    rows at places 1 and 5, T 8 in blocks of 2: blocks 0, 1 and 2 are read, [1 1] [0 0] [0 0] and [1 1] [1 1] [1 1].
    A block that a row has not reached has weights of 0 and leaves the row's sum as it is, to the bit.
    """
    positions = keys.shape[2]
    query = query.astype(compute) * jnp.asarray(1 / math.sqrt(query.shape[-1]), compute)
    num_blocks = place.max() // CACHE_BLOCK + 1

    def read(cache: jax.Array, start: jax.Array) -> jax.Array:
        block = unpack(jax.lax.dynamic_slice_in_dim(cache, start, CACHE_BLOCK, axis=2), dtype)
        # The barrier: XLA would widen each number again for every one of its uses.
        return jax.lax.optimization_barrier(block.astype(compute))

    def score(index: jax.Array, scores: jax.Array) -> jax.Array:
        start = index * CACHE_BLOCK
        found = jnp.einsum("snh,snth->snt", query, read(keys, start), preferred_element_type=jnp.float32)
        return jax.lax.dynamic_update_slice_in_dim(scores, found, start, axis=2)

    scores = jax.lax.fori_loop(0, num_blocks, score, jnp.zeros((*query.shape[:2], positions)))
    visible = jnp.arange(positions) <= place[:, None, None]
    weights, total = _weights(jnp.where(visible, scores, LOWEST))
    weights = weights.astype(compute)

    def add(index: jax.Array, product: jax.Array) -> jax.Array:
        start = index * CACHE_BLOCK
        block = jax.lax.dynamic_slice_in_dim(weights, start, CACHE_BLOCK, axis=2)
        return product + jnp.einsum("snt,snth->snh", block, read(values, start), preferred_element_type=jnp.float32)

    product = jax.lax.fori_loop(0, num_blocks, add, jnp.zeros(query.shape, jnp.float32))
    return product / total
