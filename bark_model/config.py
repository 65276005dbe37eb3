"""Sizes and constants of a checkpoint, read from its `config.json` and `generation_config.json`; nothing is hard-coded.

A small checkpoint may use other values for every number here. Frozen, checked at construction, free of jax.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bark_model.encodec.config import CodecConfig, CodecConfigError

MAX_CONFIG_BYTES = 16 * 2**20


class ConfigError(ValueError):
    """A checkpoint's JSON is missing a value or holds one that cannot be; one line."""


def _shown(value: Any) -> str:
    """A value in an error: a stranger's JSON may hold a megabyte."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        return "a giant number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _whole(owner: str, name: str, value: Any, low: int, high: int = 2**31 - 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{owner}: {name} is {_shown(value)}, must be a whole number from {low} to {high}")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """One GPT-2-like network. bark: 24 layers, 16 heads, 1024 wide; bark-small: 12, 12, 768."""

    num_layers: int
    num_heads: int
    hidden_size: int
    block_size: int
    input_vocab_size: int
    output_vocab_size: int
    bias: bool = True

    def __post_init__(self):
        owner = type(self).__name__
        _whole(owner, "num_layers", self.num_layers, 1, 1024)
        _whole(owner, "num_heads", self.num_heads, 1, 1024)
        for name in ("hidden_size", "block_size", "input_vocab_size", "output_vocab_size"):
            _whole(owner, name, getattr(self, name), 1, 2**24)
        if not isinstance(self.bias, bool):
            raise ConfigError(f"{owner}: bias is {_shown(self.bias)}, must be true or false")
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"{owner}: hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}"
            )

    @property
    def head_size(self) -> int:
        """H: width of one attention head."""
        return self.hidden_size // self.num_heads


@dataclass(frozen=True, kw_only=True)
class FineConfig(TransformerConfig):
    """The non-causal network: an embedding a codebook, a head for each but the first `n_codes_given`."""

    n_codes_total: int = 8
    n_codes_given: int = 1
    tie_word_embeddings: bool = True

    def __post_init__(self):
        super().__post_init__()
        _whole("FineConfig", "n_codes_total", self.n_codes_total, 2, 256)
        _whole("FineConfig", "n_codes_given", self.n_codes_given, 1, self.n_codes_total - 1)
        if self.tie_word_embeddings and self.input_vocab_size != self.output_vocab_size:
            raise ConfigError(
                f"FineConfig: tied heads need input_vocab_size {self.input_vocab_size} "
                f"equal to output_vocab_size {self.output_vocab_size}"
            )


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The constants of `generation_config.json`, under HF's names. Bark's own values are the defaults."""

    # semantic_config
    semantic_vocab_size: int = 10_000
    semantic_rate_hz: float = 49.9
    text_encoding_offset: int = 10_048
    text_pad_token: int = 129_595
    semantic_pad_token: int = 10_000  # also the end token
    semantic_infer_token: int = 129_599
    max_input_semantic_length: int = 256
    max_new_tokens: int = 768
    # coarse_acoustics_config
    coarse_rate_hz: float = 75
    n_coarse_codebooks: int = 2
    coarse_semantic_pad_token: int = 12_048
    coarse_infer_token: int = 12_050
    max_coarse_input_length: int = 256
    max_coarse_history: int = 630
    sliding_window_len: int = 60
    # fine_acoustics_config and the top level
    n_fine_codebooks: int = 8
    max_fine_input_length: int = 1024
    max_fine_history_length: int = 512
    codebook_size: int = 1024
    sample_rate: int = 24_000
    # Not HF's: how many text tokens one clip speaks well (suno-ai/bark#527); a checkpoint may carry its own.
    chunk_tokens: int = 37

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float or field.type == "float":
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0.1 <= value <= 10_000:
                    raise ConfigError(f"generation_config: {field.name} is {_shown(value)}, must be 0.1 to 10000 Hz")
            else:
                _whole("generation_config", field.name, value, 1)
        for name, value in (
            ("sliding_window_len", self.sliding_window_len),
            ("max_coarse_history", self.max_coarse_history),
        ):
            if value % self.n_coarse_codebooks:
                raise ConfigError(
                    f"generation_config: {name} {value} is not a multiple of n_coarse_codebooks "
                    f"{self.n_coarse_codebooks}: a window would end inside a frame"
                )
        if self.n_coarse_codebooks != 2:
            raise ConfigError(f"generation_config: n_coarse_codebooks is {self.n_coarse_codebooks}, Bark's is 2")
        if not self.n_coarse_codebooks < self.n_fine_codebooks <= 256:
            raise ConfigError(
                f"generation_config: n_fine_codebooks is {self.n_fine_codebooks}, "
                f"must be more than the {self.n_coarse_codebooks} coarse ones and at most 256"
            )
        if not self.max_fine_history_length <= self.max_fine_input_length:
            raise ConfigError(
                f"generation_config: max_fine_history_length {self.max_fine_history_length} "
                f"is more than max_fine_input_length {self.max_fine_input_length}"
            )
        if self.max_semantic_history < 1:
            raise ConfigError(
                f"generation_config: max_coarse_history {self.max_coarse_history} holds no semantic token"
            )

    @property
    def coarse_per_semantic(self) -> float:
        """Coarse tokens (both codebooks) a semantic token: 3.006 for Bark."""
        return self.coarse_rate_hz / self.semantic_rate_hz * self.n_coarse_codebooks

    @property
    def max_semantic_history(self) -> int:
        """Semantic tokens that span the coarse history: 209 for Bark."""
        return math.floor(self.max_coarse_history / self.coarse_per_semantic)

    @property
    def semantic_prefill_length(self) -> int:
        """Positions of the semantic prompt: text merged with history, then the infer token. 257 for Bark."""
        return self.max_input_semantic_length + 1

    @property
    def coarse_prefill_length(self) -> int:
        """Most positions of a coarse window's prompt: semantic, infer token, coarse history. 887 for Bark."""
        return self.max_coarse_input_length + 1 + self.max_coarse_history

    @property
    def samples_per_frame(self) -> int:
        """Audio samples a codec frame: 320 for Bark."""
        return round(self.sample_rate / self.coarse_rate_hz)

    @classmethod
    def from_json(cls, generation: Mapping[str, Any]) -> "Generation":
        """Reads HF's nested layout; keys that are not constants (generation options) are left out."""
        values: dict[str, Any] = {}
        for part, names in GENERATION_KEYS.items():
            inner = generation.get(part) if part else generation
            if not isinstance(inner, Mapping):
                raise ConfigError(f"generation_config.json: {part} is {type(inner).__name__}, must be an object")
            values |= {name: inner[name] for name in names if name in inner}
            if part == "semantic_config" and inner.get("eos_token_id") is not None:
                values["semantic_pad_token"] = inner["eos_token_id"]  # HF overwrites the pad by the end token, too
        return cls(**{key: value for key, value in values.items() if value is not None})


# The part of generation_config.json that holds each constant, None for its top level. Read from its own part only:
# a file of transformers says max_new_tokens null in the other two.
GENERATION_KEYS: dict[str | None, tuple[str, ...]] = {
    "semantic_config": (
        "semantic_vocab_size",
        "semantic_rate_hz",
        "text_encoding_offset",
        "text_pad_token",
        "semantic_pad_token",
        "semantic_infer_token",
        "max_input_semantic_length",
        "max_new_tokens",
    ),
    "coarse_acoustics_config": (
        "coarse_rate_hz",
        "n_coarse_codebooks",
        "coarse_semantic_pad_token",
        "coarse_infer_token",
        "max_coarse_input_length",
        "max_coarse_history",
        "sliding_window_len",
    ),
    "fine_acoustics_config": ("n_fine_codebooks", "max_fine_input_length", "max_fine_history_length"),
    None: ("codebook_size", "sample_rate", "chunk_tokens"),
}

# What transformers' config classes take where a file says nothing: it writes only what differs from them.
_SIZE_DEFAULTS = {
    "num_layers": 12,
    "num_heads": 12,
    "hidden_size": 768,
    "block_size": 1024,
    "input_vocab_size": 10_048,
    "output_vocab_size": 10_048,
}


MAX_CODEC_NUMBER = 2**16
"""Above every number of an EnCodec config; below what overflows a float or lists tensors without end."""


def _check_magnitudes(codec: Mapping[str, Any]) -> None:
    for name, value in codec.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not abs(number) <= MAX_CODEC_NUMBER:
                where = f"config.json: codec_config.{_shown(name)}"
                raise ConfigError(f"{where} holds {_shown(number)}, must be at most {MAX_CODEC_NUMBER}")


def _part(cls, config: Mapping[str, Any], key: str):
    inner = config.get(key)
    if not isinstance(inner, Mapping):
        raise ConfigError(f"config.json: {key} is {type(inner).__name__}, must be an object")
    names = {field.name for field in fields(cls)}
    try:
        return cls(**_SIZE_DEFAULTS | {name: value for name, value in inner.items() if name in names})
    except ConfigError as error:
        raise ConfigError(f"config.json: {key}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class BarkConfig:
    """A whole checkpoint: four networks and the constants that join them."""

    semantic: TransformerConfig
    coarse: TransformerConfig
    fine: FineConfig
    codec: CodecConfig
    generation: Generation

    def __post_init__(self):
        g = self.generation
        semantic_positions = g.semantic_prefill_length + g.max_new_tokens - 1  # the last token is never fed back
        coarse_positions = g.coarse_prefill_length + g.sliding_window_len - 1
        first_text_id = g.text_encoding_offset + 1
        limits = (
            # name, value, the name and size of what must hold it
            ("semantic prompt and new tokens", semantic_positions, "semantic block_size", self.semantic.block_size),
            ("semantic_pad_token + 1", g.semantic_pad_token + 1, "output vocabulary", self.semantic.output_vocab_size),
            ("semantic_vocab_size", g.semantic_vocab_size, "semantic_pad_token", g.semantic_pad_token),
            ("text_pad_token + 1", g.text_pad_token + 1, "input vocabulary", self.semantic.input_vocab_size),
            (
                "semantic_infer_token + 1",
                g.semantic_infer_token + 1,
                "input vocabulary",
                self.semantic.input_vocab_size,
            ),
            ("text_encoding_offset + 1", first_text_id, "input vocabulary", self.semantic.input_vocab_size),
            ("coarse prompt and window", coarse_positions, "coarse block_size", self.coarse.block_size),
            ("coarse classes", self.coarse_classes_end, "output vocabulary", self.coarse.output_vocab_size),
            ("coarse classes", self.coarse_classes_end, "input vocabulary", self.coarse.input_vocab_size),
            ("coarse_semantic_pad_token + 1", g.coarse_semantic_pad_token + 1, "input", self.coarse.input_vocab_size),
            ("coarse_infer_token + 1", g.coarse_infer_token + 1, "input vocabulary", self.coarse.input_vocab_size),
            ("max_fine_input_length", g.max_fine_input_length, "fine block_size", self.fine.block_size),
            ("codebook_size + 1 (its pad)", g.codebook_size + 1, "fine input vocabulary", self.fine.input_vocab_size),
            ("codebook_size", g.codebook_size, "fine output vocabulary", self.fine.output_vocab_size),
            ("n_fine_codebooks", g.n_fine_codebooks, "fine n_codes_total", self.fine.n_codes_total),
            ("fine n_codes_given", self.fine.n_codes_given, "n_coarse_codebooks", g.n_coarse_codebooks),
            ("n_fine_codebooks", g.n_fine_codebooks, "the codec's quantizers", self.codec.num_quantizers),
            ("the codec's quantizers", self.codec.num_quantizers, "the most there can be", 256),
            ("codebook_size", g.codebook_size, "the codec's codebook_size", self.codec.codebook_size),
        )
        for name, value, limit_name, limit in limits:
            if value > limit:
                raise ConfigError(f"checkpoint: {name} is {value}, more than {limit_name} {limit}")
        for name, ours, codecs in (
            ("sample_rate", g.sample_rate, self.codec.sampling_rate),
            ("samples a frame", g.samples_per_frame, self.codec.hop_length),
        ):
            if ours != codecs:
                raise ConfigError(f"checkpoint: {name} is {ours} in generation_config.json but {codecs} in the codec")

    @property
    def coarse_classes_end(self) -> int:
        """One past the last class of the last coarse codebook: 12048 for Bark."""
        g = self.generation
        return g.semantic_vocab_size + g.n_coarse_codebooks * g.codebook_size

    @property
    def text_vocab_size(self) -> int:
        """Tokenizer ids the semantic network can take: those below its own text pad."""
        g = self.generation
        special = [t for t in (g.text_pad_token, g.semantic_infer_token) if t >= g.text_encoding_offset]
        return min([*special, self.semantic.input_vocab_size]) - g.text_encoding_offset

    @classmethod
    def from_json(cls, config: Mapping[str, Any], generation: Mapping[str, Any]) -> "BarkConfig":
        """From the parsed `config.json` and `generation_config.json` of a folder in HF's layout."""
        for name, value in (("config.json", config), ("generation_config.json", generation)):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} holds a {type(value).__name__}, must be a JSON object")
        codec = config.get("codec_config")
        if not isinstance(codec, Mapping):
            raise ConfigError(f"config.json: codec_config is {type(codec).__name__}, must be an object")
        _check_magnitudes(codec)
        try:
            codec_config = CodecConfig.from_json(codec)
        except CodecConfigError as error:
            raise ConfigError(f"config.json: {error}") from error
        return cls(
            semantic=_part(TransformerConfig, config, "semantic_config"),
            coarse=_part(TransformerConfig, config, "coarse_acoustics_config"),
            fine=_part(FineConfig, config, "fine_acoustics_config"),
            codec=codec_config,
            generation=Generation.from_json(generation),
        )

    @classmethod
    def from_folder(cls, folder: str | Path) -> "BarkConfig":
        """Reads the two JSON files of a checkpoint folder."""
        return cls.from_json(
            read_json(Path(folder) / "config.json"), read_json(Path(folder) / "generation_config.json")
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size; every fault is one line that names the file."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes, more than the {MAX_CONFIG_BYTES} of a config")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}, must be a JSON object")
    return value
