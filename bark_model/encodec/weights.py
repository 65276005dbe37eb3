"""The table between transformers' EnCodec tensors and this package's parameters, both ways. numpy only.

    transformers                          here                        shape there -> here
    <convolution>.conv.weight             <path>.kernel               [C out, C in, kernel] -> [kernel, C in, C out]
    <upsampling>.conv.weight              <path>.kernel               [C in, C out, kernel] -> [kernel, C in, C out]
    <either>.conv.bias                    <path>.bias                 [C out]
    <lstm>.weight_ih_l<n>                 <path>.<n>.input_kernel     [4C, C] -> [C, 4C]
    <lstm>.weight_hh_l<n>                 <path>.<n>.recurrent_kernel [4C, C] -> [C, 4C]
    <lstm>.bias_ih_l<n>, .bias_hh_l<n>    <path>.<n>.bias             their sum [4C]; back: the sum, and zeros
    quantizer.layers.<k>.codebook.embed   quantizer.codebooks[k]      [V, C]

`conv_paths` lists every <convolution>. A convolution's weight comes in one of three forms: `weight` itself, or
weight-normalized as `weight_g`, `weight_v` or as `parametrizations.weight.original0`, `.original1`, and is then
folded in float32: weight = g * v / |v|, the norm over all axes but the first (Salimans & Kingma 2016).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bark_model.encodec.config import CodecConfig

# A convolution's weight under weight norm: the names of g [first axis, 1, 1] and of v [the weight's shape].
_PARAMETRIZED = ("parametrizations.weight.original0", "parametrizations.weight.original1")
_WEIGHT_NORMS = (("weight_g", "weight_v"), _PARAMETRIZED)
# State of codebook training that transformers saves beside each codebook; decoding and encoding do not read it.
_CODEBOOK_BUFFERS = ("inited", "cluster_size", "embed_avg")


class CodecWeightError(ValueError):
    """A tensor is missing, unknown, of the wrong shape or not finite; the message names it."""


@dataclass(frozen=True, kw_only=True)
class ConvPath:
    """One convolution: where it is there and here, its size, and which of its torch axes make [kernel, C in, C out]."""

    source: str
    path: str
    kernel_size: int
    c_in: int
    c_out: int
    transposed: bool = False

    @property
    def source_shape(self) -> tuple[int, int, int]:
        """The weight's shape in torch."""
        first, second = (self.c_in, self.c_out) if self.transposed else (self.c_out, self.c_in)
        return first, second, self.kernel_size

    @property
    def axes(self) -> tuple[int, int, int]:
        """np.transpose axes from torch's weight to our kernel."""
        return (2, 0, 1) if self.transposed else (2, 1, 0)


@dataclass(frozen=True, kw_only=True)
class LSTMPath:
    """One stack of LSTM layers, all [C] -> [C]."""

    source: str
    path: str
    channels: int


def _blocks(config: CodecConfig, layer: str, path: str, channels: int) -> Iterator[ConvPath]:
    inner = channels // config.compress
    size = config.residual_kernel_size
    # torch numbers a block's activations too: elu 0, narrow 1, elu 2, widen 3
    yield ConvPath(source=f"{layer}.block.1.conv", path=f"{path}.narrow", kernel_size=size, c_in=channels, c_out=inner)
    yield ConvPath(source=f"{layer}.block.3.conv", path=f"{path}.widen", kernel_size=1, c_in=inner, c_out=channels)
    if config.use_conv_shortcut:
        shortcut = f"{path}.shortcut"
        yield ConvPath(source=f"{layer}.shortcut.conv", path=shortcut, kernel_size=1, c_in=channels, c_out=channels)


def _encoder(config: CodecConfig) -> Iterator[ConvPath | LSTMPath]:
    """The encoder's parts in torch's order, whose numbering counts the activations (elu) in between."""
    channels, blocks = config.num_filters, config.num_residual_layers
    size = config.kernel_size
    yield ConvPath(
        source="encoder.layers.0.conv",
        path="encoder.input_conv",
        kernel_size=size,
        c_in=config.audio_channels,
        c_out=channels,
    )
    layer = 1
    for stage, ratio in enumerate(reversed(config.upsampling_ratios)):
        path = f"encoder.stages.{stage}"
        for block in range(blocks):
            yield from _blocks(config, f"encoder.layers.{layer + block}", f"{path}.blocks.{block}", channels)
        layer += blocks + 1  # the blocks and an elu
        down = f"encoder.layers.{layer}.conv"
        yield ConvPath(source=down, path=f"{path}.down", kernel_size=2 * ratio, c_in=channels, c_out=2 * channels)
        channels *= 2
        layer += 1
    yield LSTMPath(source=f"encoder.layers.{layer}.lstm", path="encoder.lstm.layers", channels=channels)
    yield ConvPath(
        source=f"encoder.layers.{layer + 2}.conv",
        path="encoder.output_conv",
        kernel_size=config.last_kernel_size,
        c_in=channels,
        c_out=config.hidden_size,
    )


def _decoder(config: CodecConfig) -> Iterator[ConvPath | LSTMPath]:
    """The decoder's parts, numbered in the same way."""
    channels, blocks = config.latent_channels, config.num_residual_layers
    yield ConvPath(
        source="decoder.layers.0.conv",
        path="decoder.input_conv",
        kernel_size=config.kernel_size,
        c_in=config.hidden_size,
        c_out=channels,
    )
    yield LSTMPath(source="decoder.layers.1.lstm", path="decoder.lstm.layers", channels=channels)
    layer = 2
    for stage, ratio in enumerate(config.upsampling_ratios):
        path, half = f"decoder.stages.{stage}", channels // 2
        yield ConvPath(
            source=f"decoder.layers.{layer + 1}.conv",  # behind an elu
            path=f"{path}.up",
            kernel_size=2 * ratio,
            c_in=channels,
            c_out=half,
            transposed=True,
        )
        layer += 2
        for block in range(blocks):
            yield from _blocks(config, f"decoder.layers.{layer + block}", f"{path}.blocks.{block}", half)
        layer += blocks
        channels = half
    yield ConvPath(
        source=f"decoder.layers.{layer + 1}.conv",
        path="decoder.output_conv",
        kernel_size=config.last_kernel_size,
        c_in=channels,
        c_out=config.audio_channels,
    )


def _parts(config: CodecConfig) -> tuple[list[ConvPath], list[LSTMPath]]:
    parts = [*_encoder(config), *_decoder(config)]
    return [p for p in parts if isinstance(p, ConvPath)], [p for p in parts if isinstance(p, LSTMPath)]


def _norm(v: np.ndarray) -> np.ndarray:
    """|v| over all axes but the first, float32, shape [first axis, 1, 1]."""
    return np.sqrt(np.square(v).sum(axis=(1, 2), keepdims=True, dtype=np.float32))


class _Tensors:
    """Hands out each tensor once, shape-checked and in float32, and knows which ones nobody asked for."""

    def __init__(self, tensors: Mapping[str, np.ndarray]):
        self._tensors = tensors
        self._left = set(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._tensors:
            raise CodecWeightError(f"codec tensor {name} {list(shape)} is missing: the checkpoint is incomplete")
        found = self._tensors[name]
        if tuple(found.shape) != shape:
            raise CodecWeightError(
                f"codec tensor {name} is {list(found.shape)}, must be {list(shape)}: "
                "config.json does not belong to these weights"
            )
        self._left.discard(name)
        value = np.asarray(found, dtype=np.float32)
        if not np.isfinite(value).all():
            raise CodecWeightError(f"codec tensor {name} holds NaN or infinity: the checkpoint is damaged")
        return value

    def ignore(self, name: str) -> None:
        self._left.discard(name)

    def finish(self) -> None:
        if self._left:
            names = sorted(self._left)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CodecWeightError(
                f"codec tensor {names[0]}{more} is unknown: config.json does not belong to these weights"
            )


def _folded(tensors: _Tensors, source: str, shape: tuple[int, int, int]) -> np.ndarray:
    """A convolution's plain weight [shape] in torch's layout, from whichever form is there."""
    for g_name, v_name in _WEIGHT_NORMS:
        if f"{source}.{g_name}" in tensors:
            g = tensors.take(f"{source}.{g_name}", (shape[0], 1, 1))
            v = tensors.take(f"{source}.{v_name}", shape)
            norm = _norm(v)
            if not norm.all():
                raise CodecWeightError(
                    f"codec tensor {source}.{v_name} has a row of zeros: weight norm divides by its length"
                )
            return v * (g / norm)
    return tensors.take(f"{source}.weight", shape)


def codec_weights(config: CodecConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All parameters of `Codec(config)` as {path joined by dots: float32 array}, from transformers' tensors.

    Names come without the `codec_model.` prefix; any float type is read. Raises CodecWeightError for a missing,
    unknown, misshapen or non-finite tensor.
    """
    given, weights = _Tensors(tensors), {}
    convs, lstms = _parts(config)
    for conv in convs:
        folded = _folded(given, conv.source, conv.source_shape)
        weights[f"{conv.path}.kernel"] = np.ascontiguousarray(folded.transpose(conv.axes))
        weights[f"{conv.path}.bias"] = given.take(f"{conv.source}.bias", (conv.c_out,))
    for lstm in lstms:
        gates = 4 * lstm.channels
        for n in range(config.num_lstm_layers):
            into, back = (given.take(f"{lstm.source}.weight_{k}_l{n}", (gates, lstm.channels)) for k in ("ih", "hh"))
            biases = (given.take(f"{lstm.source}.bias_{k}_l{n}", (gates,)) for k in ("ih", "hh"))
            weights[f"{lstm.path}.{n}.input_kernel"] = np.ascontiguousarray(into.T)
            weights[f"{lstm.path}.{n}.recurrent_kernel"] = np.ascontiguousarray(back.T)
            weights[f"{lstm.path}.{n}.bias"] = np.add(*biases)
    books = [f"quantizer.layers.{k}.codebook" for k in range(config.num_quantizers)]
    entry_shape = (config.codebook_size, config.hidden_size)
    weights["quantizer.codebooks"] = np.stack([given.take(f"{book}.embed", entry_shape) for book in books])
    for book in books:
        for buffer in _CODEBOOK_BUFFERS:
            given.ignore(f"{book}.{buffer}")
    given.finish()
    return weights


def _normalized(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """g and v whose fold is `weight`; a row of zeros, which has no direction, gets g = 0 and any v."""
    g = _norm(weight)
    return g, np.where(g == 0, np.float32(1), weight)


def codec_tensors(config: CodecConfig, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `codec_weights`: every tensor of transformers' state dict (without prefix), float32.

    Convolutions are written in the parametrized form; the buffers of codebook training as a trained codebook has them.
    """
    tensors: dict[str, np.ndarray] = {}
    weights = {path: np.asarray(value, dtype=np.float32) for path, value in weights.items()}
    convs, lstms = _parts(config)
    for conv in convs:
        weight = np.ascontiguousarray(weights[f"{conv.path}.kernel"].transpose(np.argsort(conv.axes)))
        for name, value in zip(_PARAMETRIZED, _normalized(weight), strict=True):
            tensors[f"{conv.source}.{name}"] = value
        tensors[f"{conv.source}.bias"] = weights[f"{conv.path}.bias"]
    for lstm in lstms:
        for n in range(config.num_lstm_layers):
            bias = weights[f"{lstm.path}.{n}.bias"]
            tensors[f"{lstm.source}.weight_ih_l{n}"] = np.ascontiguousarray(weights[f"{lstm.path}.{n}.input_kernel"].T)
            recurrent = weights[f"{lstm.path}.{n}.recurrent_kernel"]
            tensors[f"{lstm.source}.weight_hh_l{n}"] = np.ascontiguousarray(recurrent.T)
            tensors[f"{lstm.source}.bias_ih_l{n}"] = bias
            tensors[f"{lstm.source}.bias_hh_l{n}"] = np.zeros_like(bias)
    for k, embed in enumerate(weights["quantizer.codebooks"]):
        book = f"quantizer.layers.{k}.codebook"
        tensors[f"{book}.embed"] = embed
        tensors[f"{book}.embed_avg"] = embed.copy()
        tensors[f"{book}.cluster_size"] = np.ones(config.codebook_size, np.float32)
        tensors[f"{book}.inited"] = np.ones(1, np.float32)
    return tensors
