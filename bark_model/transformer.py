"""The causal transformer of the semantic and the coarse stage, with a static KV cache.

Layers are unrolled: a `lax.scan` over layers copies the KV cache on CPU (measured 1.7 to 6 times slower steps).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from bark_model.attention import attend_cache, cache_positions, pack
from bark_model.config import TransformerConfig
from bark_model.layers import Block, Embedding, Linear, layer_norm


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer: a tuple of [S, N, T, H] each, packed; T is rounded up to whole blocks.

    What lies behind a row's last position is finite, always: a masked value weighs 0, but 0 * NaN is NaN.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    @classmethod
    def empty(cls, config: TransformerConfig, slots: int, positions: int, dtype: DTypeLike) -> "KVCache":
        shape = (slots, config.num_heads, cache_positions(positions), config.head_size)

        def zeros() -> tuple[jax.Array, ...]:
            return tuple(pack(jnp.zeros(shape, dtype)) for _ in range(config.num_layers))

        return cls(keys=zeros(), values=zeros())

    @property
    def positions(self) -> int:
        return self.keys[0].shape[2]


class CausalTransformer(nnx.Module):
    """Embeddings in, logits out: `prefill` for a whole prompt, `step` for one token a row."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs, dtype: DTypeLike):
        width = config.hidden_size
        self.dtype, self.block_size = dtype, config.block_size
        self.token_embedding = Embedding(config.input_vocab_size, width, rngs=rngs, dtype=dtype)
        self.position_embedding = Embedding(config.block_size, width, rngs=rngs, dtype=dtype)
        self.blocks = nnx.List(
            [Block(config, norm_bias=config.bias, rngs=rngs, dtype=dtype) for _ in range(config.num_layers)]
        )
        self.norm_final = layer_norm(width, bias=config.bias, rngs=rngs, dtype=dtype)
        self.head = Linear(width, config.output_vocab_size, bias=False, rngs=rngs, dtype=dtype)

    def prefill(self, embeddings: jax.Array, lengths: jax.Array, positions: int) -> tuple[jax.Array, KVCache]:
        """Runs prompts [B, T, D] of `lengths` [B] tokens, right-padded to T.

        Returns the hidden state of each prompt's last token, float32 [B, D], and a cache of `positions` places,
        rounded up to whole blocks, which are finite behind the prompt. Padding is zeroed first, so NaN or any garbage
        there is never seen.
        """
        length = embeddings.shape[1]
        places = jnp.arange(length)
        # lengths 3 of T 5:  in [a b c x y]  ->  out [a b c 0 0]
        embeddings = jnp.where((places < lengths[:, None])[..., None], embeddings, 0)
        x = (embeddings + self.position_embedding(places)).astype(jnp.float32)
        pad = ((0, 0), (0, 0), (0, cache_positions(positions) - length), (0, 0))
        keys, values = [], []
        for block in self.blocks[:-1]:
            x, key, value = block(x, causal=True)
            keys.append(pack(jnp.pad(key, pad)))
            values.append(pack(jnp.pad(value, pad)))
        # Of the last block only the last token's output is ever used: no other query, no other MLP.
        block = self.blocks[-1]
        query, key, value = block.project(x)
        keys.append(pack(jnp.pad(key, pad)))
        values.append(pack(jnp.pad(value, pad)))
        last = (lengths - 1)[:, None]
        x = jnp.take_along_axis(x, last[..., None], axis=1)
        query = jnp.take_along_axis(query, last[..., None, None], axis=2)
        x = block.finish(x, self._attend_cache(query, keys[-1], values[-1], lengths - 1))
        return x[:, 0], KVCache(keys=tuple(keys), values=tuple(values))

    def step(self, tokens: jax.Array, position: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
        """One decode step: `tokens` [S] stand at `position` [S]. Returns hidden states float32 [S, D] and the cache.

        A position behind the last place (a row that is done) is clamped to it.
        """
        place = jnp.minimum(position, min(cache.positions, self.block_size) - 1)
        x = (self.token_embedding(tokens) + self.position_embedding(place)).astype(jnp.float32)[:, None]
        keys, values = [], []
        for block, old_key, old_value in zip(self.blocks, cache.keys, cache.values, strict=True):
            query, key, value = block.project(x)
            key, value = _write(old_key, pack(key), place), _write(old_value, pack(value), place)
            x = block.finish(x, self._attend_cache(query, key, value, place))
            keys.append(key)
            values.append(value)
        return x[:, 0], KVCache(keys=tuple(keys), values=tuple(values))

    def _attend_cache(self, query: jax.Array, keys: jax.Array, values: jax.Array, place: jax.Array) -> jax.Array:
        """One query a row [S, N, 1, H] over a layer's cache, up to place [S]: float32 [S, N, 1, H]."""
        return attend_cache(query[:, :, 0], keys, values, place, self.dtype)[:, :, None]

    def logits(self, hidden: jax.Array, first: int, count: int) -> jax.Array:
        """[S, D] -> float32 logits [S, count] of the classes first..first+count-1; no other class is computed."""
        return self.head.columns(self.norm_final(hidden).astype(self.dtype), first, count)


def _write(cache: jax.Array, new: jax.Array, place: jax.Array) -> jax.Array:
    """Writes new [S, N, 1, H] into cache [S, N, T, H], row s at place[s]."""
    return jax.vmap(lambda row, x, at: jax.lax.dynamic_update_slice(row, x, (0, at, 0)))(cache, new, place)
