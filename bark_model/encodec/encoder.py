"""SEANet's encoder: a waveform becomes latent frames, each `hop_length` samples long."""

import jax
from flax import nnx

from bark_model.encodec.config import CodecConfig
from bark_model.encodec.conv import Conv, ResidualBlock
from bark_model.encodec.lstm import LSTM


class DownStage(nnx.Module):
    """Residual blocks, then `ratio` times fewer positions with twice the channels."""

    def __init__(self, config: CodecConfig, channels: int, ratio: int, *, rngs: nnx.Rngs, dtype):
        dilations = [config.dilation_growth_rate**index for index in range(config.num_residual_layers)]
        self.blocks = nnx.List([ResidualBlock(config, channels, d, rngs=rngs, dtype=dtype) for d in dilations])
        self.down = Conv(channels, 2 * channels, 2 * ratio, stride=ratio, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, ceil(T / ratio), 2C]."""
        for block in self.blocks:
            x = block(x, lengths)
        return self.down(jax.nn.elu(x), lengths)


class Encoder(nnx.Module):
    """Waveform -> latent frames."""

    def __init__(self, config: CodecConfig, *, rngs: nnx.Rngs, dtype):
        init = {"rngs": rngs, "dtype": dtype}
        self.input_conv = Conv(config.audio_channels, config.num_filters, config.kernel_size, **init)
        self.stages = nnx.List(
            [
                DownStage(config, config.num_filters * 2**index, ratio, **init)
                for index, ratio in enumerate(reversed(config.upsampling_ratios))
            ]
        )
        self.lstm = LSTM(config.latent_channels, config.num_lstm_layers, **init)
        self.output_conv = Conv(config.latent_channels, config.hidden_size, config.last_kernel_size, **init)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Audio [B, L, 1] with lengths in samples -> latent frames [B, T, C], T = ceil(L / hop_length)."""
        x = self.input_conv(x, lengths)
        for stage in self.stages:
            x = stage(x, lengths)
            lengths = -(-lengths // stage.down.stride)
        return self.output_conv(jax.nn.elu(self.lstm(x)), lengths)
