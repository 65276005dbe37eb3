"""The whole codec, and the two functions that run it.

`encode` and `decode` are pure functions of a module and arrays, to be called under jit or pmap; each new shape of their
arrays (and each `num_codebooks`) compiles anew, row lengths do not.

Rows of a batch are right-padded to one shape. With `lengths` every row gives exactly what it gives alone, at any
length from 1 on, whatever stands in its padding (see conv.py); without, all rows are taken as full.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from bark_model.encodec.config import CodecConfig
from bark_model.encodec.conv import keep_row
from bark_model.encodec.decoder import Decoder
from bark_model.encodec.encoder import Encoder
from bark_model.encodec.quantizer import Quantizer


class Codec(nnx.Module):
    """Encoder, quantizer and decoder; `dtype` is that of the parameters, arithmetic is always float32."""

    def __init__(self, config: CodecConfig, *, rngs: nnx.Rngs, dtype=jnp.float32):
        self.config = config
        self.encoder = Encoder(config, rngs=rngs, dtype=dtype)
        self.quantizer = Quantizer(config, rngs=rngs, dtype=dtype)
        self.decoder = Decoder(config, rngs=rngs, dtype=dtype)


def _check_codebooks(codec: Codec, num_codebooks: int) -> None:
    limit = codec.config.num_quantizers
    if not 1 <= num_codebooks <= limit:
        raise ValueError(f"{num_codebooks} codebooks, this codec has {limit}: give 1 to {limit}")


def decode(codec: Codec, codes: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    """Codes int [B, K, T] of the first K codebooks -> audio float32 [B, L], L = T * hop_length.

    lengths [B]: frames of each row; its true samples are the first lengths[b] * hop_length, the rest means nothing.
    Raises ValueError when the codec has fewer than K codebooks.
    """
    rows, num_codebooks, frames = codes.shape
    _check_codebooks(codec, num_codebooks)
    lengths = jnp.full(rows, frames) if lengths is None else lengths
    return codec.decoder(codec.quantizer.decode(codes), lengths)[..., 0]


def encode(codec: Codec, audio: jax.Array, lengths: jax.Array | None = None, *, num_codebooks: int) -> jax.Array:
    """Audio float [B, L] at the codec's sample rate -> codes int32 [B, K, T] of the first `num_codebooks` codebooks.

    lengths [B]: samples of each row; its true frames are the first ceil(lengths[b] / hop_length).
    Raises ValueError when the codec has fewer codebooks.
    """
    rows, samples = audio.shape
    _check_codebooks(codec, num_codebooks)
    lengths = jnp.full(rows, samples) if lengths is None else lengths
    x = keep_row(audio.astype(jnp.float32)[..., None], lengths)  # NaN in the padding ends here
    return codec.quantizer.encode(codec.encoder(x, lengths), num_codebooks)
