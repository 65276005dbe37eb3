"""What both transformers are built of: pre-norm blocks with fused qkv, exact-erf GELU, float32 norms."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from bark_model import cpu_kernels
from bark_model.attention import attend, pack, unpack
from bark_model.config import TransformerConfig

LAYER_NORM_EPSILON = 1e-5


def layer_norm(width: int, *, bias: bool, rngs: nnx.Rngs, dtype: DTypeLike) -> nnx.LayerNorm:
    """LayerNorm computed in float32 whatever the weights' dtype; the two-pass variance is torch's."""
    return nnx.LayerNorm(
        width,
        epsilon=LAYER_NORM_EPSILON,
        use_bias=bias,
        use_fast_variance=False,
        dtype=jnp.float32,
        param_dtype=dtype,
        rngs=rngs,
    )


class Linear(nnx.Module):
    """x W + b, [..., A] -> [..., C] float32, whatever the weights' dtype: products are summed in float32.

    Left to itself XLA rounds a bfloat16 product to bfloat16; on a CPU it then also takes a path half as fast.
    """

    def __init__(self, width_in: int, width_out: int, *, bias: bool, rngs: nnx.Rngs, dtype: DTypeLike):
        init = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(init(rngs.params(), (width_in, width_out), dtype))
        self.bias = nnx.Param(jnp.zeros(width_out, dtype)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.columns(x, 0, self.kernel.shape[1])
        return y if self.bias is None else y + self.bias[...].astype(jnp.float32)

    def columns(self, x: jax.Array, first: int, count: int) -> jax.Array:
        """x W[:, first : first + count], [..., A] -> float32 [..., count]; no other column is computed."""
        kernel = self.kernel[...]
        if cpu_kernels.multiplies(x, kernel):
            return cpu_kernels.product(x, kernel, first, count)
        return jnp.dot(
            x, jax.lax.slice_in_dim(kernel, first, first + count, axis=1), preferred_element_type=jnp.float32
        )


class Embedding(nnx.Module):
    """A table [V, D] of vectors, kept packed: XLA on CPU would widen all of a bfloat16 table for every look into it."""

    def __init__(self, rows: int, width: int, *, rngs: nnx.Rngs, dtype: DTypeLike):
        self.dtype = dtype
        self.embedding = nnx.Param(pack(nnx.initializers.normal(0.02)(rngs.params(), (rows, width), dtype)))

    def __call__(self, ids: jax.Array) -> jax.Array:
        """[...] -> [..., D] in `dtype`."""
        return unpack(self.embedding[...][ids], self.dtype)


class SelfAttention(nnx.Module):
    """Multi-head attention; the fused projection holds q, k, v in this order."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs, dtype: DTypeLike):
        width = config.hidden_size
        self.num_heads, self.head_size = config.num_heads, config.head_size
        self.qkv = Linear(width, 3 * width, bias=config.bias, rngs=rngs, dtype=dtype)
        self.out = Linear(width, width, bias=config.bias, rngs=rngs, dtype=dtype)

    def project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[B, T, D] -> query, key, value, each [B, N, T, H]."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).astype(x.dtype).reshape(batch, length, 3, self.num_heads, self.head_size)
        query, key, value = jnp.moveaxis(qkv, (2, 3), (0, 2))
        return query, key, value

    def merge(self, heads: jax.Array) -> jax.Array:
        """[B, N, T, H] -> float32 [B, T, D], through the output projection."""
        batch, _, length, _ = heads.shape
        return self.out(jnp.swapaxes(heads, 1, 2).reshape(batch, length, self.num_heads * self.head_size))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). The residual stream x is float32; products take `dtype`."""

    def __init__(self, config: TransformerConfig, *, norm_bias: bool, rngs: nnx.Rngs, dtype: DTypeLike):
        width = config.hidden_size
        self.dtype = dtype
        self.norm_1 = layer_norm(width, bias=norm_bias, rngs=rngs, dtype=dtype)
        self.attention = SelfAttention(config, rngs=rngs, dtype=dtype)
        self.norm_2 = layer_norm(width, bias=norm_bias, rngs=rngs, dtype=dtype)
        self.mlp_in = Linear(width, 4 * width, bias=config.bias, rngs=rngs, dtype=dtype)
        self.mlp_out = Linear(4 * width, width, bias=config.bias, rngs=rngs, dtype=dtype)

    def project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The attention's inputs from the residual stream [B, T, D]: query, key, value, each [B, N, T, H]."""
        return self.attention.project(self.norm_1(x).astype(self.dtype))

    def finish(self, x: jax.Array, attended: jax.Array) -> jax.Array:
        """Adds the attention [B, N, T, H] and the MLP to the residual stream [B, T, D]."""
        x = x + self.attention.merge(attended.astype(self.dtype))
        hidden = jax.nn.gelu(self.mlp_in(self.norm_2(x).astype(self.dtype)), approximate=False)
        return x + self.mlp_out(hidden.astype(self.dtype))

    def __call__(self, x: jax.Array, *, causal: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        """One block over a whole sequence: returns the new x [B, T, D] and its key and value [B, N, T, H]."""
        query, key, value = self.project(x)
        return self.finish(x, attend(query, key, value, causal=causal)), key, value
