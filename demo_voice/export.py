"""Write the trained parts as one checkpoint in the layout of transformers' Bark, fp16, with tokenizer and voices."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from codec import CODEBOOKS, INPUT_GAIN, codec_config, load_codec
from constants import (
    COARSE_HISTORY,
    COARSE_INFER,
    COARSE_PAD,
    COARSE_SEMANTIC,
    COARSE_SIZE,
    COARSE_VOCAB,
    COARSE_WINDOW,
    CODES,
    FINE_HISTORY,
    FINE_SIZE,
    FINE_VOCAB,
    FINE_WINDOW,
    MAX_SEMANTIC_TOKENS,
    SEMANTIC_INFER,
    SEMANTIC_INPUTS,
    SEMANTIC_OUTPUTS,
    SEMANTIC_PAD,
    SEMANTIC_RATE_HZ,
    SEMANTIC_SIZE,
    SEMANTIC_VOCAB,
    TEXT_LENGTH,
    TEXT_OFFSET,
    TEXT_PAD,
)
from data import read_shard
from lm import Size
from make_tokenizer import save_tokenizer
from phones import SAMPLE_RATE
from safetensors.torch import save_file
from torch import nn
from train_coarse import CoarseModel
from train_fine import FineModel
from train_semantic import SemanticModel
from transformers import BarkConfig, BarkModel
from transformers.models.bark.generation_configuration_bark import BarkGenerationConfig

VOICES = ("v2/en_speaker_0", "v2/en_speaker_1")
VOICE_SECONDS = (2.5, 4.5)  # length of the sentences that become voice presets
CHUNK_CHARACTERS = 105
TEMPERATURES = {"semantic": 0.15, "coarse": 0.3, "fine": 0.3}


def stage_config(size: Size, inputs: int, outputs: int, **more: int) -> dict:
    """Config of one transformer."""
    return {
        "block_size": size.positions,
        "input_vocab_size": inputs,
        "output_vocab_size": outputs,
        "num_layers": size.layers,
        "num_heads": size.heads,
        "hidden_size": size.width,
        "dropout": 0.0,
        "bias": False,
        **more,
    }


def bark_config() -> BarkConfig:
    """Sizes of the four parts."""
    return BarkConfig(
        semantic_config=stage_config(SEMANTIC_SIZE, SEMANTIC_INPUTS, SEMANTIC_OUTPUTS),
        coarse_acoustics_config=stage_config(COARSE_SIZE, COARSE_VOCAB, COARSE_VOCAB),
        fine_acoustics_config=stage_config(FINE_SIZE, FINE_VOCAB, FINE_VOCAB, n_codes_total=CODEBOOKS, n_codes_given=1),
        codec_config=codec_config().to_dict(),
    )


def generation_config() -> BarkGenerationConfig:
    """The checkpoint's own constants and the temperatures it sounds best at."""
    return BarkGenerationConfig(
        semantic_config={
            "eos_token_id": SEMANTIC_PAD,
            "max_new_tokens": MAX_SEMANTIC_TOKENS,
            "temperature": TEMPERATURES["semantic"],
            "do_sample": True,
            "text_encoding_offset": TEXT_OFFSET,
            "text_pad_token": TEXT_PAD,
            "semantic_infer_token": SEMANTIC_INFER,
            "semantic_vocab_size": SEMANTIC_VOCAB,
            "max_input_semantic_length": TEXT_LENGTH,
            "semantic_rate_hz": SEMANTIC_RATE_HZ,
        },
        coarse_acoustics_config={
            "temperature": TEMPERATURES["coarse"],
            "do_sample": True,
            "coarse_semantic_pad_token": COARSE_PAD,
            "coarse_infer_token": COARSE_INFER,
            "coarse_rate_hz": 75,
            "n_coarse_codebooks": 2,
            "max_coarse_input_length": COARSE_SEMANTIC,
            "max_coarse_history": COARSE_HISTORY,
            "sliding_window_len": COARSE_WINDOW,
        },
        fine_acoustics_config={
            "temperature": TEMPERATURES["fine"],
            "max_fine_history_length": FINE_HISTORY,
            "max_fine_input_length": FINE_WINDOW,
            "n_fine_codebooks": CODEBOOKS,
        },
        sample_rate=SAMPLE_RATE,
        codebook_size=CODES,
    )


def trained(path: Path, model: nn.Module) -> nn.Module:
    """The model with the weights of its training checkpoint; untrained ones where there is none."""
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        print(f"{path.name}: step {state['step']}")
    else:
        print(f"{path.name} is missing: this stage is exported untrained")
    return model


@torch.no_grad()
def build_model(work: Path) -> BarkModel:
    """BarkModel with every trained part in place, the structured tables folded into plain ones."""
    codec = load_codec(work)
    embed = torch.stack([layer.codebook.embed for layer in codec.quantizer.layers])
    semantic = trained(work / "semantic.pt", SemanticModel())
    coarse = trained(work / "coarse.pt", CoarseModel(embed))
    fine = trained(work / "fine.pt", FineModel(embed))
    model = BarkModel(bark_config()).eval()
    for part, stage in ((model.semantic, semantic), (model.coarse_acoustics, coarse), (model.fine_acoustics, fine)):
        missing, unexpected = part.load_state_dict(stage.body.state_dict(), strict=False)
        known = ("attn.bias", "lm_head", "lm_heads", "input_embeds_layer", "input_embeds_layers")
        left = [name for name in missing if not any(word in name for word in known)]
        assert not unexpected, unexpected
        assert not left, left
    for part, stage in ((model.semantic, semantic), (model.coarse_acoustics, coarse)):
        part.input_embeds_layer.weight.copy_(stage.input_table())
        part.lm_head.weight.copy_(stage.head_table())
    for layer, table in zip(model.fine_acoustics.input_embeds_layers, fine.tables, strict=True):
        layer.weight.copy_(table())
    for head, table in zip(model.fine_acoustics.lm_heads, fine.tables[1:], strict=True):
        head.weight.copy_(table())
    model.codec_model.load_state_dict(codec.state_dict())
    # the codec works at six times the teacher's level: the gain goes into its first and last convolution
    first = model.codec_model.encoder.layers[0].conv
    first.parametrizations.weight.original0.mul_(INPUT_GAIN)
    last = model.codec_model.decoder.layers[-1].conv
    last.parametrizations.weight.original0.div_(INPUT_GAIN)
    last.bias.div_(INPUT_GAIN)
    return model


def save_weights(model: BarkModel, folder: Path) -> None:
    """model.safetensors in fp16; masks and tied heads are made again on loading."""
    tied = [f"fine_acoustics.lm_heads.{n}.weight" for n in range(CODEBOOKS - 1)]
    tensors = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name not in tied and not name.endswith("attn.bias")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def save_voices(work: Path, folder: Path) -> None:
    """Voice presets: the first training sentences of a fitting length, in the teacher's own tokens."""
    rows = read_shard(work / "speech" / "train000.npz", with_audio=False)
    codes = np.load(work / "codes" / "train000.npy")
    ends = 2 * np.cumsum([len(row.semantic) for row in rows])
    paths: dict = {"repo_or_path": "."}
    (folder / "speaker_embeddings" / "v2").mkdir(parents=True, exist_ok=True)
    for name, seconds in zip(VOICES, VOICE_SECONDS, strict=True):
        number = min(range(len(rows)), key=lambda n: abs(len(rows[n].semantic) / SEMANTIC_RATE_HZ - seconds))
        frames = codes[ends[number] - 2 * len(rows[number].semantic) : ends[number]].T.astype(np.int32)
        arrays = {
            "semantic_prompt": rows[number].semantic.astype(np.int32),
            "coarse_prompt": frames[:2],
            "fine_prompt": frames,
        }
        paths[name] = {key: f"speaker_embeddings/{name}_{key}.npy" for key in arrays}
        for key, array in arrays.items():
            np.save(folder / paths[name][key], np.ascontiguousarray(array))
    (folder / "speaker_embeddings_path.json").write_text(json.dumps(paths, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Write the whole folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    model = build_model(args.work)
    config = model.config.to_dict()
    config["architectures"] = ["BarkModel"]
    (args.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # not of transformers: how many characters one clip speaks well, read by the product when it splits texts
    constants = {**generation_config().to_dict(), "chunk_tokens": CHUNK_CHARACTERS}
    (args.folder / "generation_config.json").write_text(json.dumps(constants, indent=2) + "\n", encoding="utf-8")
    save_weights(model, args.folder)
    save_tokenizer(args.folder)
    save_voices(args.work, args.folder)
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(f"{size / 2**20:.1f} MiB in {args.folder}")


if __name__ == "__main__":
    main()
