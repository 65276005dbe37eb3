"""Suno's own checkpoint format, and Facebook's of EnCodec, as names and sizes. numpy only; convert.py reads the files.

Three files, each a dict of `model_args` (the sizes) and `model` (the tensors); names are nanoGPT's:

    transformer.h.3.attn.c_attn.weight  ->  layers.3.attn.att_proj.weight       (a `_orig_mod.` before it is dropped)
    encoder.model.4.block.1.conv.conv.weight_g  ->  encoder.layers.4.block.1.conv.parametrizations.weight.original0
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bark_model.config import BarkConfig, ConfigError, FineConfig, Generation, TransformerConfig
from bark_model.encodec.config import CodecConfig

SUNO_FILES = {
    "semantic": ("text_2.pt", "text.pt"),
    "coarse": ("coarse_2.pt", "coarse.pt"),
    "fine": ("fine_2.pt", "fine.pt"),
}
"""Part -> its file in the large model, then in the small one."""

_DROPPED = ("_orig_mod", "transformer")
_RENAMED = {
    "wte": "input_embeds_layer",
    "wtes": "input_embeds_layers",
    "wpe": "position_embeds_layer",
    "h": "layers",
    "ln_1": "layernorm_1",
    "ln_2": "layernorm_2",
    "ln_f": "layernorm_final",
    "c_attn": "att_proj",
    "c_fc": "in_proj",
    "c_proj": "out_proj",
}
_CODEC_PATTERNS = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.(conv\.conv|convtr\.convtr)\.", ".conv."),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
_SIZES = {
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "n_embd": "hidden_size",
    "block_size": "block_size",
    "input_vocab_size": "input_vocab_size",
    "output_vocab_size": "output_vocab_size",
    "bias": "bias",
}
_FINE_SIZES = {"n_codes_total": "n_codes_total", "n_codes_given": "n_codes_given"}


def suno_paths(folder: Path) -> dict[str, Path]:
    """Part -> file of a folder in Suno's format, the large model's if both are there; only those that are there."""
    found = {}
    for sizes in zip(*SUNO_FILES.values(), strict=True):
        paths = {part: folder / name for part, name in zip(SUNO_FILES, sizes, strict=True)}
        there = {part: path for part, path in paths.items() if path.is_file()}
        if len(there) > len(found):
            found = there
    return found


def hf_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One network's tensors under HF's names, without the part's prefix."""
    return {
        ".".join(_RENAMED.get(word, word) for word in name.split(".") if word not in _DROPPED): array
        for name, array in tensors.items()
    }


def hf_codec_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A codec's tensors under HF's names, from Facebook's or from either of HF's; weight norm in the newer form."""
    renamed = {}
    for name, array in tensors.items():
        for pattern, replacement in _CODEC_PATTERNS:
            name = re.sub(pattern, replacement, name)
        renamed[name] = array
    return renamed


def suno_config(
    arguments: Mapping[str, Mapping[str, Any]], codec: CodecConfig, generation: Mapping[str, Any] | None
) -> BarkConfig:
    """The sizes of a checkpoint from each part's `model_args`. Without generation constants, Bark's own apply.

    Raises ConfigError naming the part and the size.
    """
    return BarkConfig(
        semantic=_sizes(TransformerConfig, "semantic", arguments["semantic"], _SIZES),
        coarse=_sizes(TransformerConfig, "coarse", arguments["coarse"], _SIZES),
        # Suno's code ties the heads whenever it builds the network.
        fine=_sizes(FineConfig, "fine", arguments["fine"], _SIZES | _FINE_SIZES),
        codec=codec,
        generation=Generation() if generation is None else Generation.from_json(generation),
    )


def _sizes(cls, part: str, arguments: Mapping[str, Any], names: Mapping[str, str]):
    values = {ours: arguments[theirs] for theirs, ours in names.items() if theirs in arguments}
    if "vocab_size" in arguments:  # files older than two vocabularies
        values = {"input_vocab_size": arguments["vocab_size"], "output_vocab_size": arguments["vocab_size"]} | values
    try:
        return cls(**values)
    except TypeError as error:  # a size is missing
        raise ConfigError(f"model_args of the {part} file: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"model_args of the {part} file: {error}") from error
