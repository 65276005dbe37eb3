"""The LSTM of SEANet: a stack of unidirectional layers with one skip connection over the whole."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from bark_model.encodec.conv import PRECISION, float32, uniform


class LSTMLayer(nnx.Module):
    """One layer; gates lie side by side in torch's order: input, forget, cell, output.

    input_kernel [C, 4C], recurrent_kernel [C, 4C], bias [4C] (the sum of torch's two).
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs, dtype):
        bound = 1 / math.sqrt(channels)
        self.input_kernel = uniform(rngs, (channels, 4 * channels), bound, dtype)
        self.recurrent_kernel = uniform(rngs, (channels, 4 * channels), bound, dtype)
        self.bias = uniform(rngs, (4 * channels,), bound, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Time first: [T, B, C] -> [T, B, C], from a zero state."""
        # What depends on the input alone is one product before the loop; the loop keeps the recurrent product.
        gates = jnp.matmul(x, float32(self.input_kernel), precision=PRECISION) + float32(self.bias)
        recurrent = float32(self.recurrent_kernel)

        def step(state, gates_now):
            hidden, cell = state
            now = gates_now + jnp.matmul(hidden, recurrent, precision=PRECISION)
            enter, forget, candidate, leave = jnp.split(now, 4, axis=-1)
            cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
            hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
            return (hidden, cell), hidden

        start = jnp.zeros_like(x[0])
        return jax.lax.scan(step, (start, start), gates)[1]


class LSTM(nnx.Module):
    """x + layers(x)."""

    def __init__(self, channels: int, num_layers: int, *, rngs: nnx.Rngs, dtype):
        self.layers = nnx.List([LSTMLayer(channels, rngs=rngs, dtype=dtype) for _ in range(num_layers)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, T, C]; position t sees 0..t."""
        y = x.swapaxes(0, 1)
        for layer in self.layers:
            y = layer(y)
        return x + y.swapaxes(0, 1)
