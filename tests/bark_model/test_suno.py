"""Suno's own three files and Facebook's codec become the same checkpoint that HF's layout holds."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bark_model import Checkpoint, CheckpointError
from bark_model.checkpoint import PARTS
from bark_model.config import ConfigError
from bark_model.convert import convert, read_suno_file
from bark_model.encodec.config import CodecConfig
from bark_model.networks import read_parameters
from bark_model.random_checkpoint import write_random
from bark_model.weights import WeightError
from tests.bark_model.conftest import SHAPES
from tests.bark_model.test_checkpoint import fault
from tests.bark_model.test_convert import assert_same_tensors

SUNO_NAMES = (
    ("input_embeds_layers.", "transformer.wtes."),
    ("input_embeds_layer.", "transformer.wte."),
    ("position_embeds_layer.", "transformer.wpe."),
    ("layernorm_final.", "transformer.ln_f."),
    ("layers.", "transformer.h."),
    ("layernorm_", "ln_"),
    ("att_proj", "c_attn"),
    ("in_proj", "c_fc"),
    ("out_proj", "c_proj"),
)


def suno_name(name: str) -> str:
    for ours, theirs in SUNO_NAMES:
        name = name.replace(ours, theirs)
    return name


def numpy_1_names(path: Path) -> None:
    """Names numpy's scalar function as numpy 1 did when Suno's files were written."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            new = data.replace(b"cnumpy._core.multiarray\nscalar", b"cnumpy.core.multiarray\nscalar")
            assert (new != data) == name.endswith("data.pkl")
            archive.writestr(name, new)


def write_suno(checkpoint: Checkpoint, target: Path, *, small: bool = False, prefix: str = "_orig_mod.") -> Path:
    """The three files of Suno's format, from a checkpoint in HF's layout; tied heads and masks are in them."""
    target.mkdir()
    for part, file in (("semantic", "text"), ("coarse", "coarse"), ("fine", "fine")):
        sizes = getattr(checkpoint.config, part)
        arguments = {
            "n_layer": sizes.num_layers,
            "n_head": sizes.num_heads,
            "n_embd": sizes.hidden_size,
            "block_size": sizes.block_size,
            "bias": sizes.bias,
            "dropout": 0.0,
        }
        if sizes.input_vocab_size == sizes.output_vocab_size:
            arguments["vocab_size"] = sizes.input_vocab_size
        else:
            arguments |= {"input_vocab_size": sizes.input_vocab_size, "output_vocab_size": sizes.output_vocab_size}
        tensors = {suno_name(name): torch.tensor(array) for name, array in checkpoint.tensors(part).items()}
        if part == "fine":
            arguments |= {"n_codes_total": sizes.n_codes_total, "n_codes_given": np.int64(sizes.n_codes_given)}
            given = sizes.n_codes_total - sizes.n_codes_given
            tensors |= {f"lm_heads.{k}.weight": tensors[f"transformer.wtes.{k + 1}.weight"] for k in range(given)}
        tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
        path = target / f"{file}{'' if small else '_2'}.pt"
        model = {prefix + name: tensor for name, tensor in tensors.items()}
        torch.save({"model": model, "model_args": arguments, "best_val_loss": np.float64(2.5), "iter_num": 7}, path)
        numpy_1_names(path)
    return target


def write_codec_folder(checkpoint: Checkpoint, target: Path) -> None:
    """An EnCodec of its own in HF's layout, in the older form of weight norm, as facebook/encodec_24khz has it."""
    target.mkdir()
    shutil.copy(checkpoint.folder / "config.json", target / "whole.json")
    config = json.loads((target / "whole.json").read_text())["codec_config"]
    (target / "config.json").write_text(json.dumps(config))
    older = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): torch.tensor(array)
        for name, array in checkpoint.tensors("codec").items()
    }
    assert any(name.endswith("weight_g") for name in older)
    torch.save(older, target / "pytorch_model.bin")


@pytest.fixture
def suno_folder(folders, tmp_path):
    folder = write_suno(folders["tiny"], tmp_path / "suno")
    write_codec_folder(folders["tiny"], folder / "encodec_24khz")
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(folders["tiny"].folder / name, folder / name)
    return folder


@pytest.mark.parametrize(("small", "prefix"), [(False, "_orig_mod."), (True, "")])
def test_suno_gives_the_same_checkpoint(folders, suno_folder, tmp_path, small, prefix):
    if small:
        other = write_suno(folders["tiny"], tmp_path / "small", small=True, prefix=prefix)
        for path in suno_folder.glob("*_2.pt"):
            path.unlink()
        shutil.copytree(other, suno_folder, dirs_exist_ok=True)
    new = convert(str(suno_folder), tmp_path / "new")
    assert new.config == folders["tiny"].config
    assert_same_tensors(new, folders["tiny"])
    assert (new.folder / "tokenizer.json").read_bytes() == (suno_folder / "tokenizer.json").read_bytes()


def test_suno_without_bias_and_two_codes_given(tmp_path):
    from dataclasses import replace

    config = SHAPES["unbiased"]
    config = replace(config, fine=replace(config.fine, tie_word_embeddings=True))
    old = write_random(tmp_path / "old", config, voices=0)
    folder = write_suno(old, tmp_path / "suno")
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(old.folder / name, folder / name)
    write_codec_folder(old, tmp_path / "codec")
    new = convert(str(folder), tmp_path / "new", codec=str(tmp_path / "codec"), tokenizer=str(old.folder))
    assert new.config == config
    assert_same_tensors(new, old)


def facebook_name(name: str) -> str:
    """The name of a codec's tensor in Facebook's file."""
    name = name.replace("encoder.layers.", "encoder.model.").replace("decoder.layers.", "decoder.model.")
    name = name.replace("quantizer.layers.", "quantizer.vq.layers.").replace(".codebook.", "._codebook.")
    upsampling = name.startswith("decoder") and name.split(".")[2] in ("3", "6", "9", "12") and ".block." not in name
    name = name.replace(".conv.", ".convtr.convtr." if upsampling else ".conv.conv.")
    return name.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


def test_facebook_codec_and_bark_constants(tmp_path):
    """Bark's own constants and codec apply where the files say nothing: one layer, eight wide."""
    from dataclasses import replace

    from bark_model.random_checkpoint import bark_preset

    config = bark_preset(1, 1, 8)
    old = write_random(tmp_path / "old", replace(config, fine=replace(config.fine, bias=False)), voices=0)
    folder = write_suno(old, tmp_path / "suno")
    codec = {facebook_name(name): torch.tensor(array) for name, array in old.tensors("codec").items()}
    assert "encoder.model.1.block.1.conv.conv.weight_g" in codec
    assert "decoder.model.3.convtr.convtr.weight_v" in codec
    assert "quantizer.vq.layers.0._codebook.embed" in codec
    torch.save(codec, folder / "encodec_24khz-d7cc33bc.th", _use_new_zipfile_serialization=False)
    (folder / "tokenizer").mkdir()
    shutil.copy(old.folder / "tokenizer.json", folder / "tokenizer")
    new = convert(str(folder), tmp_path / "new")
    assert new.config == old.config
    assert new.config.codec == CodecConfig()
    for part in PARTS:
        expected, found = read_parameters(old, part), read_parameters(new, part)
        assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_suno_needs_a_codec_and_a_tokenizer(suno_folder, tmp_path):
    shutil.rmtree(suno_folder / "encodec_24khz")
    assert fault(CheckpointError, convert, str(suno_folder), tmp_path / "new") == (
        f"{suno_folder} has no encodec_24khz-*.th and no folder encodec_24khz, Suno's format needs one: "
        "give codec, such a file or folder or facebook/encodec_24khz"
    )
    (suno_folder / "tokenizer.json").unlink()
    assert fault(CheckpointError, convert, str(suno_folder), tmp_path / "new") == (
        f"{suno_folder} has no tokenizer.json and no vocab.txt, Suno's format needs one: "
        "give tokenizer, a folder or google-bert/bert-base-multilingual-cased"
    )
    assert not (tmp_path / "new").exists()


def test_suno_needs_three_files(suno_folder, tmp_path):
    (suno_folder / "coarse_2.pt").unlink()
    (suno_folder / "fine_2.pt").unlink()
    assert fault(CheckpointError, convert, str(suno_folder), tmp_path / "new") == (
        f"{suno_folder} has no coarse_2.pt or coarse.pt, no fine_2.pt or fine.pt: all three of one size are needed"
    )


def rewrite_suno(path: Path, change) -> None:
    arguments, arrays = read_suno_file(path)
    content = {"model_args": arguments, "model": {name: torch.tensor(array) for name, array in arrays.items()}}
    change(content)
    torch.save(content, path)


def test_suno_tensor_of_another_shape(suno_folder, tmp_path):
    name = "_orig_mod.transformer.h.1.mlp.c_fc.weight"
    rewrite_suno(suno_folder / "text_2.pt", lambda content: content["model"].update({name: torch.ones(3, 4)}))
    assert fault(WeightError, convert, str(suno_folder), tmp_path / "new") == (
        "tensor semantic.layers.1.mlp.in_proj.weight has shape (3, 4), config.json expects (128, 32)"
    )


def test_suno_size_that_is_missing_or_bad(suno_folder, tmp_path):
    rewrite_suno(suno_folder / "fine_2.pt", lambda content: content["model_args"].update(n_layer=0))
    assert fault(ConfigError, convert, str(suno_folder), tmp_path / "new") == (
        "model_args of the fine file: FineConfig: num_layers is 0, must be a whole number from 1 to 1024"
    )
    rewrite_suno(suno_folder / "text_2.pt", lambda content: content["model_args"].pop("n_embd"))
    assert "model_args of the semantic file" in fault(ConfigError, convert, str(suno_folder), tmp_path / "new")
    torch.save({"model": {}}, suno_folder / "text_2.pt")
    assert fault(CheckpointError, convert, str(suno_folder), tmp_path / "new") == (
        f"{suno_folder / 'text_2.pt'} has no model_args: not one of Suno's files"
    )


def test_untied_heads_in_a_tied_file(suno_folder, tmp_path):
    def change(content):
        content["model"]["_orig_mod.lm_heads.0.weight"] += 1

    rewrite_suno(suno_folder / "fine_2.pt", change)
    assert fault(WeightError, convert, str(suno_folder), tmp_path / "new") == (
        "tensor fine_acoustics.lm_heads.0.weight differs from input_embeds_layers.1.weight, to which "
        "config.json ties it: set tie_word_embeddings to false"
    )
