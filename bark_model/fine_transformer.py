"""The non-causal transformer of the fine stage: sums codebook embeddings, predicts one codebook at a time."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from bark_model.config import FineConfig
from bark_model.layers import Block, Embedding, layer_norm


class FineTransformer(nnx.Module):
    """Embeddings [K, V, D] and heads [K - n_codes_given, V, D] are stacked, so a codebook's number can be traced."""

    def __init__(self, config: FineConfig, *, rngs: nnx.Rngs, dtype: DTypeLike):
        width = config.hidden_size
        init = nnx.initializers.normal(0.02)
        self.dtype = dtype
        self.num_codes, self.num_given = config.n_codes_total, config.n_codes_given
        self.code_embeddings = nnx.Param(
            init(rngs.params(), (config.n_codes_total, config.input_vocab_size, width), dtype)
        )
        self.position_embedding = Embedding(config.block_size, width, rngs=rngs, dtype=dtype)
        # Suno's fine norms carry a bias even where bias is false.
        self.blocks = nnx.List(
            [Block(config, norm_bias=True, rngs=rngs, dtype=dtype) for _ in range(config.num_layers)]
        )
        self.norm_final = layer_norm(width, bias=True, rngs=rngs, dtype=dtype)
        self.tied = config.tie_word_embeddings
        if not self.tied:
            shape = (config.n_codes_total - config.n_codes_given, config.output_vocab_size, width)
            self.heads = nnx.Param(init(rngs.params(), shape, dtype))

    def _head(self, codebook: jax.Array, count: int) -> jax.Array:
        """The first `count` classes of the head that predicts `codebook`: [V, D].

        Tied heads are embeddings: the first predicted codebook's head is embedding 1, and so on.
        """
        stacked, first = (self.code_embeddings, 1) if self.tied else (self.heads, 0)
        head = jax.lax.dynamic_index_in_dim(stacked[...], codebook - self.num_given + first, keepdims=False)
        return head[:count]

    def __call__(self, codes: jax.Array, codebook: jax.Array, num_classes: int) -> jax.Array:
        """Logits of `codebook` (a traced number) at every position.

        codes [B, K, T]; returns float32 [B, T, V] of the first `num_classes` classes. The input is the sum of the
        embeddings of codebooks 0..codebook, the predicted one included: its old content is a hint.
        """
        length = codes.shape[-1]
        x = jnp.zeros((*codes.shape[::2], self.position_embedding.embedding.shape[-1]), jnp.float32)
        for k in range(codes.shape[1]):
            x = x + jnp.where(k <= codebook, self.code_embeddings[k][codes[:, k]], 0)
        x = x + self.position_embedding(jnp.arange(length))
        for block in self.blocks:
            x, _, _ = block(x, causal=False)
        hidden = self.norm_final(x).astype(self.dtype)
        return jnp.einsum("btd,vd->btv", hidden, self._head(codebook, num_classes), preferred_element_type=jnp.float32)
