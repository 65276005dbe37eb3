"""Residual vector quantization: each codebook quantizes what the ones before it left over."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from bark_model.encodec.config import CodecConfig
from bark_model.encodec.conv import PRECISION, float32, uniform


class Quantizer(nnx.Module):
    """All codebooks of a checkpoint: codebooks [K, V, C]."""

    def __init__(self, config: CodecConfig, *, rngs: nnx.Rngs, dtype):
        shape = (config.num_quantizers, config.codebook_size, config.hidden_size)
        self.codebooks = uniform(rngs, shape, 1 / math.sqrt(config.hidden_size), dtype)

    def encode(self, latents: jax.Array, num_codebooks: int) -> jax.Array:
        """Latent frames [B, T, C] -> codes int32 [B, K, T] of the first `num_codebooks` codebooks."""

        def step(residual, codebook):
            # The nearest entry e of x: |x - e|² = |x|² - (2 x·e - |e|²), and |x|² is the same for every e.
            nearness = 2 * jnp.matmul(residual, codebook.T, precision=PRECISION) - jnp.square(codebook).sum(axis=-1)
            codes = jnp.argmax(nearness, axis=-1).astype(jnp.int32)
            return residual - codebook[codes], codes

        codes = jax.lax.scan(step, latents, float32(self.codebooks)[:num_codebooks])[1]
        return codes.swapaxes(0, 1)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Codes [B, K, T] of the first K codebooks -> latents [B, T, C]; ids out of range (padding) are clipped."""
        codebooks = float32(self.codebooks)
        latents = jnp.take(codebooks[0], codes[:, 0], axis=0, mode="clip")
        for k in range(1, codes.shape[1]):
            latents += jnp.take(codebooks[k], codes[:, k], axis=0, mode="clip")
        return latents
