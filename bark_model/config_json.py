"""The two JSON files of a checkpoint, written in HF's layout so that `transformers` reads them back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bark_model.config import GENERATION_KEYS, BarkConfig


def _over(extra: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Our values over another file's, nested: its other keys stay."""
    merged = dict(extra)
    for key, value in ours.items():
        old = extra.get(key)
        merged[key] = _over(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged


def config_json(config: BarkConfig, extra: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` as a dict; keys of `extra` that are not ours are kept."""
    return _over(
        extra,
        {
            "model_type": "bark",
            "architectures": ["BarkModel"],
            "semantic_config": {"model_type": "semantic"} | asdict(config.semantic),
            "coarse_acoustics_config": {"model_type": "coarse_acoustics"} | asdict(config.coarse),
            "fine_acoustics_config": {"model_type": "fine_acoustics"} | asdict(config.fine),
            "codec_config": {"model_type": "encodec"} | asdict(config.codec),
        },
    )


def generation_json(config: BarkConfig, extra: Mapping[str, Any]) -> dict[str, Any]:
    """`generation_config.json` as a dict; keys of `extra` that are not ours (temperatures, say) are kept."""
    values = asdict(config.generation)
    content: dict[str, Any] = {"model_type": "bark"}
    for part, names in GENERATION_KEYS.items():
        constants = {name: values[name] for name in names}
        content |= {part: constants} if part else constants
    content["semantic_config"]["eos_token_id"] = values["semantic_pad_token"]
    return _over(extra, content)
