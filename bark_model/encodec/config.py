"""Sizes of an EnCodec model, read from the `codec_config` of a Bark checkpoint (transformers' `EncodecConfig`)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# The one kind of EnCodec that this package computes; any other value of these keys changes the network.
_IMPLEMENTED = {
    "audio_channels": 1,
    "normalize": False,
    "chunk_length_s": None,
    "norm_type": "weight_norm",
    "use_causal_conv": True,
    "pad_mode": "reflect",
}
_SMALLEST = {
    "sampling_rate": 1,
    "hidden_size": 1,
    "num_filters": 1,
    "num_residual_layers": 0,
    "kernel_size": 1,
    "last_kernel_size": 1,
    "residual_kernel_size": 1,
    "dilation_growth_rate": 1,
    "compress": 1,
    "num_lstm_layers": 1,
    "codebook_size": 2,
}


class CodecConfigError(ValueError):
    """A codec setting is outside what this implementation computes; the message names value, limit and remedy."""


def _refuse(name: str, value: object, limit: str, remedy: str) -> None:
    raise CodecConfigError(f"codec_config.{name} is {value!r}, must be {limit}: {remedy}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Fields, names and defaults are those of transformers' `EncodecConfig`; the defaults are the 24 kHz model.

    Construction raises `CodecConfigError` for a kind of EnCodec that is not implemented here (stereo, normalized or
    chunked input, other norms and paddings) and for sizes that make no network.
    """

    target_bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0, 24.0)  # kbit/s; the last one sets the codebooks
    sampling_rate: int = 24_000  # samples per second
    audio_channels: int = 1
    normalize: bool = False
    chunk_length_s: float | None = None
    hidden_size: int = 128  # channels of a latent frame, and the width of a codebook entry
    num_filters: int = 32  # channels at the sample rate; doubled by each stage of the encoder
    num_residual_layers: int = 1
    upsampling_ratios: tuple[int, ...] = (8, 5, 4, 2)  # in the decoder's order
    norm_type: str = "weight_norm"
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    dilation_growth_rate: int = 2
    use_causal_conv: bool = True
    pad_mode: str = "reflect"
    compress: int = 2  # a residual block is this many times narrower inside
    num_lstm_layers: int = 2
    trim_right_ratio: float = 1.0  # share of a transposed convolution's surplus that is cut on the right
    codebook_size: int = 1024
    codebook_dim: int | None = None
    use_conv_shortcut: bool = True

    @classmethod
    def from_json(cls, codec_config: Mapping[str, Any]) -> "CodecConfig":
        """From the parsed `codec_config` of config.json; missing keys take their defaults, unknown ones are ignored."""
        known = {field.name for field in fields(cls)} & codec_config.keys()
        values: dict[str, Any] = {name: codec_config[name] for name in known}
        for name, value in values.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def __post_init__(self):
        self._check_kind()
        self._check_sizes()
        self._check_codebooks()

    def _check_kind(self) -> None:
        for name, wanted in _IMPLEMENTED.items():
            value = getattr(self, name)
            if type(value) is not type(wanted) or value != wanted:
                _refuse(name, value, repr(wanted), "use a codec of the mono causal kind of facebook/encodec_24khz")
        if not isinstance(self.use_conv_shortcut, bool):
            _refuse("use_conv_shortcut", self.use_conv_shortcut, "true or false", "transformers' default is true")

    def _check_sizes(self) -> None:
        for name, smallest in _SMALLEST.items():
            value = getattr(self, name)
            if not _is_whole(value) or value < smallest:
                _refuse(name, value, f"a whole number from {smallest}", "correct the checkpoint's config.json")
        ratios = self.upsampling_ratios
        if not isinstance(ratios, tuple) or not ratios or not all(_is_whole(r) and r >= 1 for r in ratios):
            _refuse("upsampling_ratios", ratios, "whole numbers from 1", "the 24 kHz codec has [8, 5, 4, 2]")
        if self.compress > self.num_filters:
            _refuse("compress", self.compress, f"at most num_filters = {self.num_filters}", "or no channel is left")
        if not _is_number(self.trim_right_ratio) or not 0 <= self.trim_right_ratio <= 1:
            _refuse("trim_right_ratio", self.trim_right_ratio, "0 to 1", "the 24 kHz codec has 1.0")

    def _check_codebooks(self) -> None:
        if self.codebook_size & (self.codebook_size - 1):
            _refuse("codebook_size", self.codebook_size, "a power of two", "the 24 kHz codec has 1024")
        if self.codebook_dim not in (None, self.hidden_size):
            _refuse("codebook_dim", self.codebook_dim, f"hidden_size = {self.hidden_size}", "or null, which means it")
        bandwidths = self.target_bandwidths
        if not isinstance(bandwidths, tuple) or not bandwidths or not all(_is_number(b) and b > 0 for b in bandwidths):
            _refuse("target_bandwidths", bandwidths, "kbit/s above 0", "the 24 kHz codec ends with 24.0")
        if self.num_quantizers < 1:
            smallest = self.frame_rate_hz * self._bits_per_code / 1000
            _refuse("target_bandwidths", bandwidths, f"{smallest:g} at its end or more", "one codebook needs as much")

    @property
    def hop_length(self) -> int:
        """Samples of one codec frame."""
        return math.prod(self.upsampling_ratios)

    @property
    def frame_rate_hz(self) -> int:
        """Codec frames per second, rounded up as in transformers."""
        return math.ceil(self.sampling_rate / self.hop_length)

    @property
    def num_quantizers(self) -> int:
        """Codebooks in the checkpoint; Bark uses the first 8 of 32."""
        return int(1000 * self.target_bandwidths[-1] // (self.frame_rate_hz * self._bits_per_code))

    @property
    def latent_channels(self) -> int:
        """Channels at the frame rate, where the LSTM is."""
        return self.num_filters * 2 ** len(self.upsampling_ratios)

    @property
    def _bits_per_code(self) -> int:
        return self.codebook_size.bit_length() - 1

    def num_frames(self, num_samples: int) -> int:
        """Codec frames that encoding gives for a waveform; its last frame may be partly filled."""
        return -(-num_samples // self.hop_length)

    def num_samples(self, num_frames: int) -> int:
        """Samples that decoding gives for so many codec frames."""
        return num_frames * self.hop_length

    def num_codebooks(self, bandwidth_kbps: float) -> int:
        """Codebooks that a bandwidth of `target_bandwidths` pays for: 6 kbit/s are Bark's 8."""
        if bandwidth_kbps not in self.target_bandwidths:
            listed = ", ".join(f"{known:g}" for known in self.target_bandwidths)
            raise CodecConfigError(
                f"bandwidth is {bandwidth_kbps!r} kbit/s, this codec has {listed}: choose one of them"
            )
        return max(1, int(bandwidth_kbps * 1000 // (self.frame_rate_hz * self._bits_per_code)))
