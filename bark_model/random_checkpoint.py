"""Checkpoints of random weights in HF's layout, of any size: what tests and benchmarks run on, next to the demo voice.

Its audio is noise. Weights are scaled so that greedy decoding neither repeats itself nor gets caught in a short
cycle, and so that the end token comes after some dozens of tokens.
"""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from bark_model.checkpoint import PARTS, RANDOM_WEIGHTS, Checkpoint, save
from bark_model.config import BarkConfig, FineConfig, Generation, TransformerConfig
from bark_model.encodec.config import CodecConfig
from bark_model.encodec.weights import codec_tensors
from bark_model.networks import abstract
from bark_model.weights import Entry, causal_table, fine_table

BYTE_TOKENS = 256

TINY = BarkConfig(
    semantic=TransformerConfig(
        num_layers=2, num_heads=2, hidden_size=32, block_size=160, input_vocab_size=480, output_vocab_size=112
    ),
    coarse=TransformerConfig(
        num_layers=2, num_heads=2, hidden_size=32, block_size=128, input_vocab_size=240, output_vocab_size=240
    ),
    fine=FineConfig(
        num_layers=2, num_heads=2, hidden_size=32, block_size=64, input_vocab_size=72, output_vocab_size=72
    ),
    codec=CodecConfig(
        num_filters=4, hidden_size=16, codebook_dim=16, codebook_size=64, num_lstm_layers=1, target_bandwidths=(3.6,)
    ),
    generation=Generation(
        semantic_vocab_size=100,
        semantic_pad_token=101,
        text_encoding_offset=112,
        text_pad_token=470,
        semantic_infer_token=471,
        max_input_semantic_length=64,
        max_new_tokens=90,
        coarse_semantic_pad_token=230,
        coarse_infer_token=231,
        max_coarse_input_length=40,
        max_coarse_history=60,
        sliding_window_len=12,
        max_fine_input_length=64,
        max_fine_history_length=32,
        codebook_size=64,
        chunk_tokens=48,
    ),
)
"""All of Bark's machinery at a size that runs in seconds: clips of at most 1.8 s, five bytes of text a word."""


def bark_preset(num_layers: int, num_heads: int, hidden_size: int, *, bias: bool = False) -> BarkConfig:
    """Bark's own constants at a given transformer size: (24, 16, 1024) is bark, (12, 12, 768) is bark-small."""
    semantic = TransformerConfig(
        num_layers=num_layers,
        num_heads=num_heads,
        hidden_size=hidden_size,
        block_size=1024,
        input_vocab_size=129_600,
        output_vocab_size=10_048,
        bias=bias,
    )
    return BarkConfig(
        semantic=semantic,
        coarse=replace(semantic, input_vocab_size=12_096, output_vocab_size=12_096),
        fine=FineConfig(
            num_layers=num_layers,
            num_heads=num_heads,
            hidden_size=hidden_size,
            block_size=1024,
            input_vocab_size=1056,
            output_vocab_size=1056,
            bias=bias,
        ),
        codec=CodecConfig(),
        generation=Generation(),
    )


def _draw(entry: Entry, rng: np.random.Generator, dtype: np.dtype, sharpness: float) -> np.ndarray:
    """One random tensor. Positions are as loud as tokens: the same token at two places is not the same input."""
    name = entry.tensor
    noise = rng.standard_normal(entry.shape, np.float32)
    if len(entry.shape) == 1:
        mean = 1.0 if "layernorm" in name and name.endswith("weight") else 0.0
        return (mean + 0.02 * noise).astype(dtype)
    if "embed" in name:
        return noise.astype(dtype)
    scale = sharpness if "att_proj" in name else 1.0
    return (scale * noise / np.sqrt(np.float32(entry.shape[1]))).astype(dtype)


def _codec_weights(config: BarkConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    weights = {}
    for path, leaf in nnx.to_flat_state(abstract(config, "codec", jnp.float32)[1]):
        name = ".".join(map(str, path))
        fan_in = 1 if "codebook" in name else np.prod(leaf.shape[:-1])
        weights[name] = rng.standard_normal(leaf.shape, np.float32) / np.float32(np.sqrt(fan_in))
        if name.endswith("bias"):
            weights[name] *= np.float32(0.1)
    return weights


def random_tensors(
    config: BarkConfig, seed: int, dtype: str = "float32", end_scale: float = 1.8
) -> dict[str, np.ndarray]:
    """All tensors under HF's full names.

    The end token's head row is lengthened: the best of V normal logits is near sqrt(2 ln V), and with this length
    the end token beats it about once in 40 steps, at any V.
    """
    rng = np.random.default_rng(seed)
    tables = {
        "semantic": causal_table(config.semantic),
        "coarse": causal_table(config.coarse),
        "fine": fine_table(config.fine),
    }
    # Sharp causal attention, or every position sees the same average and each text ends at the same step. It also
    # amplifies rounding, so the fine network, whose choices are the most by far, goes without.
    sharpness = {"semantic": 2.5, "coarse": 2.5, "fine": 1.0}
    tensors = {
        PARTS[part] + entry.tensor: _draw(entry, rng, np.dtype(dtype), sharpness[part])
        for part, table in tables.items()
        for entry in table
    }
    end_scale = np.sqrt(2 * np.log(config.generation.semantic_vocab_size)) / 2.15
    tensors["semantic.lm_head.weight"][config.generation.semantic_pad_token] *= np.dtype(dtype).type(end_scale)
    codec = codec_tensors(config.codec, _codec_weights(config, rng))
    return tensors | {PARTS["codec"] + name: array for name, array in codec.items()}


def _byte_tokenizer() -> str:
    """A `tokenizer.json` whose tokens are the 256 bytes of UTF-8: any text, no training, ids 0..255."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


def write_random(
    folder: str | Path, config: BarkConfig = TINY, seed: int = 3, *, dtype: str = "float32", voices: int = 2
) -> Checkpoint:
    """Writes a whole checkpoint folder: weights, two JSON files, a byte tokenizer, voices random_0, random_1."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(_byte_tokenizer(), encoding="utf-8")
    _write_voices(folder, config.generation, np.random.default_rng([seed, 1]), voices)
    return save(folder, config, random_tensors(config, seed, dtype), extra=({}, {RANDOM_WEIGHTS: True}))


def _write_voices(folder: Path, g: Generation, rng: np.random.Generator, count: int) -> None:
    index: dict[str, dict[str, str]] = {}
    for number in range(count):
        # Lengths as in Bark's presets: about as long as a clip, codec frames for each semantic token.
        semantic_length = g.max_new_tokens * (2 + number) // 4
        frames = int(semantic_length * g.coarse_per_semantic / g.n_coarse_codebooks)
        fine = rng.integers(0, g.codebook_size, (g.n_fine_codebooks, frames))
        arrays = {
            "semantic_prompt": rng.integers(0, g.semantic_vocab_size, semantic_length),
            "coarse_prompt": fine[: g.n_coarse_codebooks],
            "fine_prompt": fine,
        }
        index[f"random_{number}"] = {}
        for key, array in arrays.items():
            path = f"speaker_embeddings/random_{number}_{key}.npy"
            (folder / path).parent.mkdir(exist_ok=True)
            np.save(folder / path, array)
            index[f"random_{number}"][key] = path
    (folder / "speaker_embeddings_path.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
