"""Checkpoint folders: every fault is one line that names the tensor or the file; every written form loads."""

import json
import shutil
import subprocess

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bark_model import Checkpoint, CheckpointError
from bark_model.checkpoint import PARTS, resolve, save
from bark_model.config import ConfigError
from bark_model.networks import abstract, fill, read_parameters
from bark_model.random_checkpoint import TINY
from bark_model.weights import WeightError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the tiny checkpoint to damage."""
    shutil.copytree(folders["tiny"].folder, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewrite(folder, change) -> Checkpoint:
    """Changes the stored tensors by `change(tensors)`, without sums."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    return Checkpoint.open(str(folder))


def shard(folder) -> list[str]:
    """Splits model.safetensors into two shards and an index; every other tensor goes to the second."""
    tensors = load_file(folder / "model.safetensors")
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    where = {name: names[i % 2] for i, name in enumerate(sorted(tensors))}
    for file in names:
        save_file({name: array for name, array in tensors.items() if where[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "model.safetensors").unlink()
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    return names


def fault(error, call, *arguments) -> str:
    """The one line an error says."""
    with pytest.raises(error) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_tensor_names_its_shape(folder):
    checkpoint = rewrite(folder, lambda tensors: tensors.pop("semantic.layers.1.mlp.in_proj.weight"))
    assert fault(WeightError, read_parameters, checkpoint, "semantic") == (
        "tensor semantic.layers.1.mlp.in_proj.weight is missing, config.json expects shape (128, 32): "
        "the weights do not belong to this config.json"
    )


def test_several_missing_tensors_are_counted(folder):
    checkpoint = rewrite(
        folder, lambda tensors: [tensors.pop(f"coarse_acoustics.layers.{i}.layernorm_1.bias") for i in (0, 1)]
    )
    assert (
        "tensor coarse_acoustics.layers.0.layernorm_1.bias is missing, config.json expects shape (32,) (and 1 more)"
        in (fault(WeightError, read_parameters, checkpoint, "coarse"))
    )


def test_extra_tensor_names_its_shape(folder):
    checkpoint = rewrite(folder, lambda t: t.update({"fine_acoustics.layers.9.attn.weight": np.zeros((2, 3), "f4")}))
    assert fault(WeightError, read_parameters, checkpoint, "fine") == (
        "tensor fine_acoustics.layers.9.attn.weight of shape (2, 3) is unknown: "
        "the weights do not belong to this config.json"
    )


def test_tensor_of_no_part(folder):
    checkpoint = rewrite(folder, lambda tensors: tensors.update({"vocoder.weight": np.zeros((2,), "f4")}))
    assert fault(WeightError, read_parameters, checkpoint, "semantic") == (
        "tensor vocoder.weight of shape (2,) is unknown: it belongs to no part of Bark"
    )


def test_misshapen_tensor(folder):
    name = "coarse_acoustics.lm_head.weight"
    checkpoint = rewrite(folder, lambda tensors: tensors.update({name: np.ascontiguousarray(tensors[name].T)}))
    assert fault(WeightError, read_parameters, checkpoint, "coarse") == (
        "tensor coarse_acoustics.lm_head.weight has shape (32, 240), config.json expects (240, 32)"
    )


def test_misshapen_codec_tensor(folder):
    name = "codec_model.quantizer.layers.0.codebook.embed"
    checkpoint = rewrite(folder, lambda tensors: tensors.update({name: np.zeros((3, 16), "f4")}))
    assert "quantizer.layers.0.codebook.embed is [3, 16], must be [64, 16]" in (
        fault(WeightError, read_parameters, checkpoint, "codec")
    )


def test_part_without_tensors(folder):
    checkpoint = rewrite(folder, lambda t: [t.pop(name) for name in list(t) if name.startswith("fine_acoustics.")])
    assert fault(WeightError, read_parameters, checkpoint, "fine") == (
        f"no tensor fine_acoustics.* in {folder}: not the weights of a Bark checkpoint"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_tensor(folder, value):
    def damage(tensors):
        tensors["semantic.layernorm_final.weight"][3] = value

    assert fault(WeightError, read_parameters, rewrite(folder, damage), "semantic") == (
        "tensor semantic.layernorm_final.weight holds NaN or infinity: the checkpoint is damaged"
    )


def test_integer_tensor(folder):
    name = "semantic.layernorm_final.weight"
    checkpoint = rewrite(folder, lambda tensors: tensors.update({name: np.ones(32, np.int32)}))
    assert fault(WeightError, read_parameters, checkpoint, "semantic") == (
        "tensor semantic.layernorm_final.weight has dtype int32, must be float32, float16 or bfloat16"
    )


def test_eight_bit_float_tensor(folder):
    import torch
    from safetensors.torch import save_file as save_torch_file

    name = "semantic.layernorm_final.weight"
    checkpoint = rewrite(folder, lambda tensors: tensors.pop(name))
    shard(folder)
    save_torch_file({name: torch.ones(32, dtype=torch.float8_e4m3fn)}, folder / "model-00001-of-00002.safetensors")
    assert fault(WeightError, read_parameters, checkpoint, "semantic") == (
        "tensor semantic.layernorm_final.weight has dtype F8_E4M3, must be float32, float16 or bfloat16"
    )


def test_truncated_safetensors(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    (folder / "SHA256SUMS").unlink()
    message = fault(CheckpointError, Checkpoint.open(str(folder)).tensors, "semantic")
    assert message.startswith(f"{path} cannot be read as safetensors: ")
    assert message.endswith(": fetch or convert it again")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_flipped_bit(folder, name):
    """A flip in the middle of the weights is finite and well-formed: only the sum tells."""
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    message = fault(CheckpointError, read_parameters, Checkpoint.open(str(folder)), "semantic")
    assert message.startswith(f"{path} has sha256 ")
    assert message.endswith("...: the file is damaged, fetch it again")


def test_lost_file_of_the_sums(folder):
    (folder / "tokenizer.json").unlink()
    assert fault(CheckpointError, Checkpoint.open(str(folder)).tensors, "semantic") == (
        f"{folder / 'tokenizer.json'} is missing, SHA256SUMS lists it: fetch it again"
    )


@pytest.mark.parametrize("content", ["hello\n", "\x00\n", "0" * 63 + "  config.json\n"])
def test_damaged_sums(folder, content):
    (folder / "SHA256SUMS").write_text(content)
    assert fault(CheckpointError, Checkpoint.open(str(folder)).tensors, "fine") == (
        f"{folder / 'SHA256SUMS'}:1 is no line of `sha256sum`: the file is damaged, fetch or convert it again"
    )


def test_sums_are_what_sha256sum_checks(folder):
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    assert "speaker_embeddings/random_0_fine_prompt.npy" in (folder / "SHA256SUMS").read_text()


def test_sha256_is_of_what_decides_results(folder, folders):
    checkpoint = Checkpoint.open(str(folder))
    assert checkpoint.sha256 == folders["tiny"].sha256 != folders["rates"].sha256
    assert set(checkpoint.sums) == {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"}
    (folder / "SHA256SUMS").unlink()
    (folder / "README.md").write_text("a card")
    assert Checkpoint.open(str(folder)).sha256 == checkpoint.sha256
    (folder / "generation_config.json").write_text((folder / "generation_config.json").read_text() + " ")
    assert Checkpoint.open(str(folder)).sha256 != checkpoint.sha256


@pytest.mark.parametrize("outside", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", ".hidden", ".."])
def test_index_outside_its_folder(folder, outside):
    shard(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"semantic.x": outside}}))
    assert fault(CheckpointError, Checkpoint.open(str(folder)).tensors, "semantic") == (
        f"{folder / INDEX} names the shard {outside!r} outside its folder: refused"
    )


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": null}'])
def test_index_without_a_map(folder, content):
    shard(folder)
    (folder / INDEX).write_text(content)
    assert fault(CheckpointError, Checkpoint.open(str(folder)).tensors, "semantic") == (
        f"{folder / INDEX} has no weight_map: no index of weights"
    )


def test_missing_shard(folder):
    _, second = shard(folder)
    (folder / second).unlink()
    assert fault(CheckpointError, Checkpoint.open(str(folder)).tensors, "semantic") == (
        f"{folder / second} is missing, {INDEX} names it: fetch it again"
    )


def test_tensor_in_two_shards(folder):
    first, second = shard(folder)
    save_file(load_file(folder / first), folder / second)
    assert "is in two files of" in fault(WeightError, Checkpoint.open(str(folder)).tensors, "semantic")


def test_shards_are_the_whole(folder, folders):
    shard(folder)
    for part in PARTS:
        expected, found = folders["tiny"].tensors(part), Checkpoint.open(str(folder)).tensors(part)
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert fault(CheckpointError, Checkpoint.open(str(folder)).tensors, "semantic") == (
        f"{folder} has no model.safetensors and no pytorch_model.bin: not a checkpoint in HF's layout"
    )


def test_empty_folder(tmp_path):
    assert "not a checkpoint in HF's layout" in fault(CheckpointError, Checkpoint.open, str(tmp_path))


def test_suno_folder_says_how_to_convert(tmp_path):
    (tmp_path / "text_2.pt").touch()
    assert fault(CheckpointError, Checkpoint.open, str(tmp_path)) == (
        f"{tmp_path} has Suno's own format: run `bark-beam weights convert {tmp_path} FOLDER` first"
    )


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "cannot be read as JSON: "),
        (b"\xff\xfe{}", "cannot be read as JSON: "),
        (b"[" * 100_000, "cannot be read as JSON: "),
        (b"[]", "holds a list, must be a JSON object"),
        (b" " * (16 * 2**20 + 1), "has 16777217 bytes, more than the 16777216 of a config"),
    ],
)
def test_bad_json(folder, name, content, says):
    (folder / name).write_bytes(content)
    assert fault(ConfigError, Checkpoint.open, str(folder)).startswith(f"{folder / name} {says}")


def test_missing_generation_config(folder):
    (folder / "generation_config.json").unlink()
    assert fault(ConfigError, Checkpoint.open, str(folder)).startswith(
        f"{folder / 'generation_config.json'} cannot be read"
    )


@pytest.mark.parametrize("name", ["nothing", "./a/b", "a/b/c", "~/x", ""])
def test_unknown_names(name):
    assert fault(CheckpointError, resolve, name) == (
        f"checkpoint {name!r} is no folder: give 'demo', a folder, gs://... or a hub name such as suno/bark"
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16])
def test_save_keeps_dtypes_and_bits(tmp_path, folders, dtype):
    tensors = {
        prefix + name: array.astype(dtype)
        for part, prefix in PARTS.items()
        for name, array in folders["tiny"].tensors(part).items()
    }
    saved = save(tmp_path / "new", TINY, tensors)
    assert saved.config == TINY
    for part, prefix in PARTS.items():
        for name, array in saved.tensors(part).items():
            assert array.dtype == dtype
            assert array.tobytes() == tensors[prefix + name].tobytes()


def test_save_leaves_nothing_of_another_checkpoint(folder, folders, monkeypatch):
    """A save that is cut off leaves no weights and no sums, rather than old weights beside a new config."""
    import bark_model.checkpoint as module

    def cut_off(*_arguments):
        raise OSError("disk full")

    monkeypatch.setattr(module, "save_file", cut_off)
    with pytest.raises(OSError, match="disk full"):
        save(folder, folders["rates"].config, {})
    assert not (folder / "model.safetensors").exists()
    assert not (folder / "SHA256SUMS").exists()


@pytest.mark.parametrize("part", PARTS)
def test_fill_compares_with_the_abstract_tree(folders, part):
    """Every leaf of the module's eval_shape is filled with its own shape; a missing or misshapen one is refused."""
    checkpoint = folders["tiny"]
    parameters = read_parameters(checkpoint, part)
    _, state = abstract(checkpoint.config, part, np.float32)
    fill(state, parameters, part, np.float32)
    name = sorted(parameters)[0]
    message = fault(WeightError, fill, state, {k: v for k, v in parameters.items() if k != name}, part, np.float32)
    assert message == f"{part}: parameters {name} are in the network or the table, not in both"
    wrong = parameters | {name: np.zeros((5, 7), np.float32)}
    message = fault(WeightError, fill, state, wrong, part, np.float32)
    assert message.startswith(f"{part}: parameter ")
    assert f"has shape (5, 7), the network expects {parameters[name].shape}" in message
