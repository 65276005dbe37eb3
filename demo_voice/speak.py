"""Run an exported checkpoint with transformers: texts or semantic tokens in, tokens and audio out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BarkModel
from transformers.models.bark.generation_configuration_bark import (
    BarkCoarseGenerationConfig,
    BarkFineGenerationConfig,
    BarkSemanticGenerationConfig,
)


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A loaded checkpoint and its constants; `greedy` takes the likeliest token everywhere."""

    model: BarkModel
    tokenizer: object
    semantic: BarkSemanticGenerationConfig
    coarse: BarkCoarseGenerationConfig
    fine: BarkFineGenerationConfig


def load_voice(folder: Path, *, greedy: bool, temperatures: dict[str, float] | None = None) -> Voice:
    """Read the folder as transformers does; `temperatures` by stage replace the checkpoint's own."""
    model = BarkModel.from_pretrained(folder, dtype=torch.float32).eval()
    parts = model.generation_config
    configs = {
        "semantic": BarkSemanticGenerationConfig(**as_dict(parts.semantic_config)),
        "coarse": BarkCoarseGenerationConfig(**as_dict(parts.coarse_acoustics_config)),
        "fine": BarkFineGenerationConfig(**as_dict(parts.fine_acoustics_config)),
    }
    for name, config in configs.items():
        if temperatures and name in temperatures:
            config.temperature = temperatures[name]
        if greedy:
            config.do_sample, config.temperature = False, 1.0
    return Voice(model=model, tokenizer=AutoTokenizer.from_pretrained(folder), **configs)


def as_dict(config: object) -> dict:
    """A part of the generation config, which is a dict when read back from JSON."""
    return dict(config) if isinstance(config, dict) else config.to_dict()


@torch.no_grad()
def semantic_tokens(voice: Voice, texts: list[str]) -> list[np.ndarray]:
    """Semantic tokens of each text; a row that never ended is as long as max_new_tokens."""
    length = voice.semantic.max_input_semantic_length
    encoded = voice.tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt", add_special_tokens=False
    )
    out = voice.model.semantic.generate(
        encoded["input_ids"], semantic_generation_config=voice.semantic, attention_mask=encoded["attention_mask"]
    )
    end = voice.semantic.eos_token_id
    return [row[: int((row != end).sum())].numpy() for row in out]


@torch.no_grad()
def coarse_codes(voice: Voice, rows: list[np.ndarray]) -> list[torch.Tensor]:
    """Flat coarse tokens (4 T,) of each row of semantic tokens (T,)."""
    longest = max(map(len, rows))
    pad = voice.semantic.eos_token_id
    batch = torch.stack(
        [torch.from_numpy(np.pad(row.astype(np.int64), (0, longest - len(row)), constant_values=pad)) for row in rows]
    )
    coarse, lengths = voice.model.coarse_acoustics.generate(
        batch,
        semantic_generation_config=voice.semantic,
        coarse_generation_config=voice.coarse,
        codebook_size=1024,
        return_output_lengths=True,
    )
    return [row[: int(length)] for row, length in zip(coarse, lengths, strict=True)]


@torch.no_grad()
def audio_of(voice: Voice, coarse: torch.Tensor) -> np.ndarray:
    """Fine codes and audio of one row of coarse tokens."""
    codes = voice.model.fine_acoustics.generate(
        coarse[None],
        semantic_generation_config=voice.semantic,
        coarse_generation_config=voice.coarse,
        fine_generation_config=voice.fine,
        codebook_size=1024,
    )
    return voice.model.codec_decode(codes)[0].numpy()
