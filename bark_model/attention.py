"""Scaled dot-product attention behind one function: the place where a platform's fused kernel goes in."""

import math

import jax
import jax.numpy as jnp


def attend(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
    """softmax(q k^T / sqrt(H)) v, the softmax in float32.

    query [B, N, T, H]; key and value [B, N, U, H] with U the positions looked at; mask broadcasts to [B, N, T, U],
    False where a query may not look. Masked keys and values must be finite: their weight is exactly 0, and 0 * NaN
    is NaN. Returns [B, N, T, H] in query's dtype.
    """
    scores = jnp.einsum("bnth,bnuh->bntu", query, key, preferred_element_type=jnp.float32)
    scores = scores * (1.0 / math.sqrt(query.shape[-1]))
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    return jnp.einsum("bntu,bnuh->bnth", weights, value)
