"""The two JSON files of a checkpoint, written in HF's layout so that `transformers` reads them back."""

from dataclasses import asdict
from typing import Any

from bark_model.config import BarkConfig

_SEMANTIC_KEYS = (
    "semantic_vocab_size",
    "semantic_rate_hz",
    "text_encoding_offset",
    "text_pad_token",
    "semantic_pad_token",
    "semantic_infer_token",
    "max_input_semantic_length",
    "max_new_tokens",
)
_COARSE_KEYS = (
    "coarse_rate_hz",
    "n_coarse_codebooks",
    "coarse_semantic_pad_token",
    "coarse_infer_token",
    "max_coarse_input_length",
    "max_coarse_history",
    "sliding_window_len",
)
_FINE_KEYS = ("n_fine_codebooks", "max_fine_input_length", "max_fine_history_length")
_TOP_KEYS = ("codebook_size", "sample_rate", "chunk_tokens")


def config_json(config: BarkConfig) -> dict[str, Any]:
    """`config.json` as a dict."""
    return {
        "model_type": "bark",
        "architectures": ["BarkModel"],
        "semantic_config": {"model_type": "semantic"} | asdict(config.semantic),
        "coarse_acoustics_config": {"model_type": "coarse_acoustics"} | asdict(config.coarse),
        "fine_acoustics_config": {"model_type": "fine_acoustics"} | asdict(config.fine),
        "codec_config": {"model_type": "encodec"} | asdict(config.codec),
    }


def generation_json(config: BarkConfig) -> dict[str, Any]:
    """`generation_config.json` as a dict."""
    values = asdict(config.generation)
    semantic = {key: values[key] for key in _SEMANTIC_KEYS} | {"eos_token_id": values["semantic_pad_token"]}
    return {
        "model_type": "bark",
        "semantic_config": semantic,
        "coarse_acoustics_config": {key: values[key] for key in _COARSE_KEYS},
        "fine_acoustics_config": {key: values[key] for key in _FINE_KEYS},
        **{key: values[key] for key in _TOP_KEYS},
    }
