"""The convolutions of SEANet as EnCodec 24 kHz uses them: causal, reflect-padded, each row as if it were alone.

Rows of a batch are right-padded, and row b's true positions are 0 .. lengths[b] - 1. A causal network never looks to
the right of a position, but its *padding* does: the left end mirrors the row's first positions and the right end of a
strided convolution its last ones. Both are built from the row's own length, so a row gives its own result whatever
stands behind it, down to a length of one.

Parameters are stored in `dtype`; all arithmetic is float32 at full precision (a TPU's or GPU's faster matmul formats
are audible in a waveform and flip codes).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from bark_model.encodec.config import CodecConfig

PRECISION = jax.lax.Precision.HIGHEST


def float32(param: nnx.Param) -> jax.Array:
    """A parameter in the type that the codec computes in."""
    return param[...].astype(jnp.float32)


def uniform(rngs: nnx.Rngs, shape: tuple[int, ...], bound: float, dtype) -> nnx.Param:
    """A random parameter in -bound .. bound."""
    return nnx.Param(jax.random.uniform(rngs.params(), shape, dtype, -bound, bound))


def keep_row(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Zeros behind each row's end; [B, T, C] and lengths [B]."""
    positions = jnp.arange(x.shape[1])
    return jnp.where(positions[None, :, None] < lengths[:, None, None], x, 0)


def mirror_left(x: jax.Array, lengths: jax.Array, pad: int) -> jax.Array:
    """Reflect padding on the left, [B, T, C] -> [B, pad + T, C]; a row too short to be mirrored is followed by zeros.

    pad 3, row of 5:  in [a b c d e ? ?]  ->  out [d c b a b c d e ? ?]
    pad 3, row of 2:  in [a b ? ? ? ? ?]  ->  out [0 0 b a b ? ? ? ? ?]
    """
    if pad == 0:
        return x
    head = keep_row(x[:, : pad + 1], lengths)[:, 1:]
    head = jnp.pad(head, ((0, 0), (0, pad - head.shape[1]), (0, 0)))
    return jnp.concatenate([head[:, ::-1], x], axis=1)


def mirror_right(x: jax.Array, lengths: jax.Array, stride: int) -> jax.Array:
    """Fills each row up to a whole number of strides, [B, T, C] -> [B, T rounded up, C].

    stride 4, row of 6:  in [a b c d e f ? ?]  ->  out [a b c d e f e d]   (a 4th value behind the end is never read)
    stride 4, row of 3:  in [a b c ? ? ? ? ?]  ->  out [a b c 0 0 0 ? ?]   up to one stride: zeros, as in transformers
    """
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % stride), (0, 0)))
    if stride == 1:
        return x
    rows = jnp.arange(x.shape[0])[:, None]
    behind = lengths[:, None] + jnp.arange(stride - 1)
    mirrored = x[rows, jnp.maximum(2 * (lengths[:, None] - 1) - behind, 0)]
    mirrored = jnp.where(lengths[:, None, None] > stride, mirrored, 0)
    return x.at[rows, behind].set(mirrored, mode="drop")


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1, padding=(0, 0)) -> jax.Array:
    """[B, T, C in] with kernel [kernel size, C in, C out] -> [B, T, C out], zeros as padding."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,),
        padding=(padding,),
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=PRECISION,
    )


class Conv(nnx.Module):
    """Causal convolution; kernel [kernel size, C in, C out], bias [C out]."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, *, stride=1, dilation=1, rngs: nnx.Rngs, dtype):
        bound = 1 / math.sqrt(c_in * kernel_size)
        self.kernel = uniform(rngs, (kernel_size, c_in, c_out), bound, dtype)
        self.bias = uniform(rngs, (c_out,), bound, dtype)
        self.stride = stride
        self.dilation = dilation

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """[B, T, C in] -> [B, ceil(T / stride), C out]; row b then has ceil(lengths[b] / stride) true positions."""
        reach = (self.kernel.shape[0] - 1) * self.dilation + 1
        padded = mirror_left(mirror_right(x, lengths, self.stride), lengths, reach - self.stride)
        y = convolve(padded, float32(self.kernel), stride=self.stride, dilation=self.dilation)
        return y + float32(self.bias)


class TransposedConv(nnx.Module):
    """Upsampling by `stride` with a kernel of 2 * stride; kernel [2 * stride, C in, C out], bias [C out].

    Every position reaches two blocks of `stride` outputs: its own through kernel[:stride] and the next one through
    kernel[stride:]. Seen from the outputs that is an ordinary convolution over two positions with stride * C out
    channels, which runs up to twice as fast on a CPU as one over an input spread out with zeros:

        blocks  [x0·first]  [x1·first + x0·second]  [x2·first + x1·second]  [x2·second]
                trimmed by one block in all: `trim_left` outputs on the left, the others on the right
    """

    def __init__(self, c_in: int, c_out: int, stride: int, *, trim_right_ratio: float, rngs: nnx.Rngs, dtype):
        bound = 1 / math.sqrt(2 * c_in)
        self.kernel = uniform(rngs, (2 * stride, c_in, c_out), bound, dtype)
        self.bias = uniform(rngs, (c_out,), bound, dtype)
        self.stride = stride
        self.trim_left = stride - math.ceil(stride * trim_right_ratio)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """[B, T, C in] -> [B, T * stride, C out]; row b then has lengths[b] * stride true positions."""
        rows, length, c_in = x.shape
        if self.trim_left:  # the last block then counts, and a row's neighbour on the right must not reach into it
            x = keep_row(x, lengths)
        first, second = jnp.split(float32(self.kernel), 2)
        taps = jnp.stack([second, first]).swapaxes(1, 2).reshape(2, c_in, -1)
        y = convolve(x, taps, padding=(1, 1 if self.trim_left else 0)) + jnp.tile(float32(self.bias), self.stride)
        y = y.reshape(rows, y.shape[1] * self.stride, -1)
        return jax.lax.slice_in_dim(y, self.trim_left, self.trim_left + length * self.stride, axis=1)


class ResidualBlock(nnx.Module):
    """x -> shortcut(x) + widen(elu(narrow(elu(x)))); `narrow` is dilated and has `compress` times fewer channels."""

    def __init__(self, config: CodecConfig, channels: int, dilation: int, *, rngs: nnx.Rngs, dtype):
        inner = channels // config.compress
        init = {"rngs": rngs, "dtype": dtype}
        self.narrow = Conv(channels, inner, config.residual_kernel_size, dilation=dilation, **init)
        self.widen = Conv(inner, channels, 1, **init)
        self.shortcut = Conv(channels, channels, 1, **init) if config.use_conv_shortcut else None

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T, C]."""
        y = self.widen(jax.nn.elu(self.narrow(jax.nn.elu(x), lengths)), lengths)
        return y + (x if self.shortcut is None else self.shortcut(x, lengths))
