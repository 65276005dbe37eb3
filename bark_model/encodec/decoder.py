"""SEANet's decoder: latent frames become a waveform, `hop_length` samples a frame."""

import jax
from flax import nnx

from bark_model.encodec.config import CodecConfig
from bark_model.encodec.conv import Conv, ResidualBlock, TransposedConv
from bark_model.encodec.lstm import LSTM


class UpStage(nnx.Module):
    """`ratio` times more positions with half the channels, then residual blocks."""

    def __init__(self, config: CodecConfig, channels: int, ratio: int, *, rngs: nnx.Rngs, dtype):
        init = {"rngs": rngs, "dtype": dtype}
        half = channels // 2
        dilations = [config.dilation_growth_rate**index for index in range(config.num_residual_layers)]
        self.up = TransposedConv(channels, half, ratio, trim_right_ratio=config.trim_right_ratio, **init)
        self.blocks = nnx.List([ResidualBlock(config, half, dilation, **init) for dilation in dilations])

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """[B, T, C] with lengths at the input's rate -> [B, T * ratio, C / 2]."""
        x = self.up(jax.nn.elu(x), lengths)
        for block in self.blocks:
            x = block(x, lengths * self.up.stride)
        return x


class Decoder(nnx.Module):
    """Latent frames -> waveform."""

    def __init__(self, config: CodecConfig, *, rngs: nnx.Rngs, dtype):
        init = {"rngs": rngs, "dtype": dtype}
        channels = config.latent_channels
        self.input_conv = Conv(config.hidden_size, channels, config.kernel_size, **init)
        self.lstm = LSTM(channels, config.num_lstm_layers, **init)
        self.stages = nnx.List(
            [
                UpStage(config, channels // 2**index, ratio, **init)
                for index, ratio in enumerate(config.upsampling_ratios)
            ]
        )
        self.output_conv = Conv(config.num_filters, config.audio_channels, config.last_kernel_size, **init)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Latent frames [B, T, C] with lengths in frames -> audio [B, T * hop_length, 1]."""
        x = self.lstm(self.input_conv(x, lengths))
        for stage in self.stages:
            x = stage(x, lengths)
            lengths = lengths * stage.up.stride
        return self.output_conv(jax.nn.elu(x), lengths)
