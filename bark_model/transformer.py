"""The causal transformer of the semantic and the coarse stage, with a static KV cache.

Layers are unrolled: a `lax.scan` over layers copies the KV cache on CPU (measured 1.7 to 6 times slower steps).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from bark_model.attention import attend
from bark_model.config import TransformerConfig
from bark_model.layers import Block, layer_norm


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KVCache:
    """Keys and values of every layer: a tuple of [S, N, T, H] each, T the most positions a row can fill.

    What lies behind a row's last position is finite, always: a masked value weighs 0, but 0 * NaN is NaN.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    @classmethod
    def empty(cls, config: TransformerConfig, slots: int, positions: int, dtype: DTypeLike) -> "KVCache":
        shape = (slots, config.num_heads, positions, config.head_size)
        layers = range(config.num_layers)
        return cls(
            keys=tuple(jnp.zeros(shape, dtype) for _ in layers), values=tuple(jnp.zeros(shape, dtype) for _ in layers)
        )


class CausalTransformer(nnx.Module):
    """Embeddings in, logits out: `prefill` for a whole prompt, `step` for one token a row."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs, dtype: DTypeLike):
        width = config.hidden_size
        self.dtype = dtype
        self.token_embedding = nnx.Embed(config.input_vocab_size, width, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.position_embedding = nnx.Embed(config.block_size, width, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            [Block(config, norm_bias=config.bias, rngs=rngs, dtype=dtype) for _ in range(config.num_layers)]
        )
        self.norm_final = layer_norm(width, bias=config.bias, rngs=rngs, dtype=dtype)
        self.head = nnx.Linear(
            width, config.output_vocab_size, use_bias=False, dtype=dtype, param_dtype=dtype, rngs=rngs
        )

    def prefill(self, embeddings: jax.Array, lengths: jax.Array, positions: int) -> tuple[jax.Array, KVCache]:
        """Runs prompts [B, T, D] of `lengths` [B] tokens, right-padded to T.

        Returns the hidden state of each prompt's last token [B, D] and a cache of `positions` places, whose places
        behind the prompt are finite. Padding is zeroed first, so NaN or any garbage there is never seen.
        """
        length = embeddings.shape[1]
        places = jnp.arange(length)
        # lengths 3 of T 5:  in [a b c x y]  ->  out [a b c 0 0]
        embeddings = jnp.where((places < lengths[:, None])[..., None], embeddings, 0)
        x = embeddings.astype(self.dtype) + self.position_embedding(places)
        # query 2 of T 4 may look at  [1 1 1 0]
        causal = places[:, None] >= places[None, :]
        pad = ((0, 0), (0, 0), (0, positions - length), (0, 0))
        keys, values = [], []
        for block in self.blocks:
            x, key, value = block(x, causal)
            keys.append(jnp.pad(key, pad))
            values.append(jnp.pad(value, pad))
        last = jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]
        return last, KVCache(keys=tuple(keys), values=tuple(values))

    def step(self, tokens: jax.Array, position: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
        """One decode step: `tokens` [S] stand at `position` [S]. Returns their hidden states [S, D] and the cache.

        A position at the end of the cache (a row that is done) is clamped to the last place.
        """
        place = jnp.minimum(position, cache.keys[0].shape[2] - 1)
        x = (self.token_embedding(tokens) + self.position_embedding(place))[:, None]
        # position 2 of T 5 looks at  [1 1 1 0 0]
        visible = (jnp.arange(cache.keys[0].shape[2]) <= place[:, None])[:, None, None, :]
        keys, values = [], []
        for block, old_key, old_value in zip(self.blocks, cache.keys, cache.values, strict=True):
            query, key, value = block.attention.project(block.attention_input(x))
            key, value = _write(old_key, key, place), _write(old_value, value, place)
            x = block.finish(x, attend(query, key, value, visible))
            keys.append(key)
            values.append(value)
        return x[:, 0], KVCache(keys=tuple(keys), values=tuple(values))

    def logits(self, hidden: jax.Array, first: int, count: int) -> jax.Array:
        """[S, D] -> float32 logits [S, count] of the classes first..first+count-1; no other class is computed."""
        kernel = jax.lax.slice_in_dim(self.head.kernel[...], first, first + count, axis=1)
        hidden = self.norm_final(hidden).astype(self.dtype)
        return jnp.dot(hidden, kernel, preferred_element_type=jnp.float32)


def _write(cache: jax.Array, new: jax.Array, place: jax.Array) -> jax.Array:
    """Writes new [S, N, 1, H] into cache [S, N, T, H], row s at place[s]."""
    return jax.vmap(lambda row, x, at: jax.lax.dynamic_update_slice(row, x, (0, at, 0)))(cache, new, place)
