"""Every format a checkpoint comes in loads, transformers loads what we write, and the greedy tokens are equal."""

import json
import shutil
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bark_model import Bark, Checkpoint, CheckpointError, Request, Result, Sampling
from bark_model.checkpoint import PARTS
from bark_model.coarse import unflatten_ids
from bark_model.convert import convert, read_suno_file, read_torch_file
from bark_model.weights import WeightError
from tests.bark_model.conftest import SHAPES, SLOTS
from tests.bark_model.reference import Reference
from tests.bark_model.test_checkpoint import fault, shard

SHORT_TEXTS = ("Hello there", "♪ la")


def torch_tensors(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(array).to(dtype) for name, array in load_file(folder / "model.safetensors").items()}


def copy_without_weights(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model.safetensors", "SHA256SUMS"))
    return target


def assert_same_tensors(new: Checkpoint, old: Checkpoint) -> None:
    for part in PARTS:
        expected, found = old.tensors(part), new.tensors(part)
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected)


def as_torch_bin(source: Path, target: Path) -> Path:
    """Tied heads and causal masks beside the weights, as the pytorch_model.bin of suno/bark has them."""
    tensors = torch_tensors(source)
    if "fine_acoustics.lm_heads.0.weight" not in tensors:
        for k in range(7):
            embedding = tensors[f"fine_acoustics.input_embeds_layers.{k + 1}.weight"]
            tensors[f"fine_acoustics.lm_heads.{k}.weight"] = embedding
    tensors["semantic.layers.0.attn.bias"] = torch.ones((1, 1, 160, 160), dtype=torch.bool).tril()
    torch.save(tensors, copy_without_weights(source, target) / "pytorch_model.bin")
    return target


def as_torch_shards(source: Path, target: Path) -> Path:
    tensors = torch_tensors(copy_and_keep(source, target))
    (target / "model.safetensors").unlink()
    (target / "SHA256SUMS").unlink()
    names = sorted(tensors)
    where = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(where.values()):
        torch.save({name: tensors[name] for name in names if where[name] == file}, target / file)
    (target / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return target


def copy_and_keep(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def as_shards(source: Path, target: Path) -> Path:
    shard(copy_and_keep(source, target))
    return target


def as_transformers_saves(source: Path, target: Path) -> Path:
    """save_pretrained, and a generation config whose dict says null for every other option (see ECOSYSTEM)."""
    model = Reference(source).model
    copy_without_weights(source, target)
    model.save_pretrained(target)
    generation = model.generation_config.to_dict()
    for part in ("coarse_acoustics_config", "fine_acoustics_config"):
        generation[part] = {"max_new_tokens": None, "eos_token_id": None, **generation[part]}
    (target / "generation_config.json").write_text(json.dumps(generation))
    return target


def as_float(dtype: torch.dtype):
    def write(source: Path, target: Path) -> Path:
        from safetensors.torch import save_file

        save_file(torch_tensors(source, dtype), copy_without_weights(source, target) / "model.safetensors")
        return target

    return write


def as_bfloat16_bin(source: Path, target: Path) -> Path:
    torch.save(torch_tensors(source, torch.bfloat16), copy_without_weights(source, target) / "pytorch_model.bin")
    return target


def as_converted(source: Path, target: Path) -> Path:
    return convert(str(as_torch_bin(source, target.with_name("source"))), target).folder


def as_converted_to(dtype: str):
    return lambda source, target: convert(str(source), target, dtype=dtype).folder


def run_with_weights(compiled: Bark, loaded: Bark, requests: list[Request]) -> list[Result]:
    """The weights of `loaded` through the programs of `compiled`: they are arguments, so nothing compiles anew."""
    own = {stage: engine.network for stage, engine in compiled.engines.items()}
    try:
        for stage, engine in compiled.engines.items():
            engine.network = loaded.engines[stage].network
        return compiled.synthesize(requests, to="fine")
    finally:
        for stage, engine in compiled.engines.items():
            engine.network = own[stage]


FORMS = {
    "torch": ("tiny", as_torch_bin),
    "transformers": ("tiny", as_transformers_saves),
    "float16": ("tiny", as_float(torch.float16)),
    "bfloat16": ("tiny", as_float(torch.bfloat16)),
    "converted to bfloat16": ("tiny", as_converted_to("bfloat16")),
    "untied, no bias, two codes given: transformers": ("unbiased", as_transformers_saves),
    "untied, no bias, two codes given: converted": ("unbiased", as_converted),
}


@pytest.mark.parametrize("form", FORMS)
def test_greedy_tokens_equal_transformers(form, folders, barks, tmp_path):
    """Both implementations load the same folder; a voice in the second row."""
    shape, write = FORMS[form]
    folder = write(folders[shape].folder, tmp_path / "checkpoint")
    compiled = barks(shape)
    loaded = Bark.load(str(folder), slots=SLOTS, devices=compiled.hardware.replicas.devices)
    assert loaded.config == SHAPES[shape]
    reference, voices = Reference(folder), (None, loaded.voice("random_0"))
    requests = [
        Request(id=text, text=text, voice=voice, sampling=Sampling.greedy("transformers"))
        for text, voice in zip(SHORT_TEXTS, voices, strict=True)
    ]
    for request, result in zip(requests, run_with_weights(compiled, loaded, requests), strict=True):
        assert isinstance(result, Result), result
        assert result.semantic is not None
        assert result.semantic.tolist() == reference.semantic(loaded._ids(request), request.voice).tokens
        coarse = reference.coarse(result.semantic, request.voice).tokens
        assert np.array_equal(result.coarse, unflatten_ids(np.array(coarse), loaded.config.generation))
        assert np.array_equal(result.fine, reference.fine(np.array(coarse), request.voice).codes)


@pytest.mark.parametrize("write", [as_torch_shards, as_shards, as_converted])
def test_forms_of_the_same_tensors(write, folders, tmp_path):
    old = folders["tiny"]
    new = Checkpoint.open(str(write(old.folder, tmp_path / "checkpoint")))
    assert new.config == old.config
    assert_same_tensors(new, old)


def test_bfloat16_torch_file(folders, tmp_path):
    old = folders["tiny"]
    new = Checkpoint.open(str(as_bfloat16_bin(old.folder, tmp_path / "checkpoint")))
    for name, array in new.tensors("coarse").items():
        assert array.tobytes() == old.tensors("coarse")[name].astype(ml_dtypes.bfloat16).tobytes()


def test_conversion_is_stable(folders, tmp_path):
    """What is already converted converts to the same bytes, voices and tokenizer included; a re-run is fine."""
    source = folders["tiny"]
    for _ in range(2):
        assert convert(str(source.folder), tmp_path / "new").sha256 == source.sha256
    assert contents(tmp_path / "new") == contents(source.folder)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_other_keys_of_the_json_are_kept(folders, tmp_path):
    """Temperatures, say; but not the old dtype."""
    folder = copy_and_keep(folders["tiny"].folder, tmp_path / "old")
    (folder / "SHA256SUMS").unlink()
    for name, change in (
        ("config.json", {"torch_dtype": "float32", "initializer_range": 0.5}),
        ("generation_config.json", {"temperature": 0.6}),
    ):
        content = json.loads((folder / name).read_text())
        content["semantic_config"] |= {"temperature": 0.4, "dtype": "float32"} if name.startswith("config") else change
        (folder / name).write_text(json.dumps(content | change))
    new = convert(str(folder), tmp_path / "new", dtype="float16").folder
    config, generation = (json.loads((new / name).read_text()) for name in ("config.json", "generation_config.json"))
    assert (config["initializer_range"], config["semantic_config"]["temperature"]) == (0.5, 0.4)
    assert "torch_dtype" not in config
    assert "dtype" not in config["semantic_config"]
    assert (generation["temperature"], generation["semantic_config"]["temperature"]) == (0.6, 0.6)


def test_dtype_is_of_the_transformers(folders, tmp_path):
    new = convert(str(folders["tiny"].folder), tmp_path / "new", dtype="bfloat16")
    for part in PARTS:
        dtypes = {array.dtype for array in new.tensors(part).values()}
        assert dtypes == {np.dtype(np.float32 if part == "codec" else ml_dtypes.bfloat16)}


def test_values_beyond_float16(folders, tmp_path):
    tensors = torch_tensors(folders["tiny"].folder)
    tensors["semantic.lm_head.weight"][0, 0] = 1e6
    folder = copy_without_weights(folders["tiny"].folder, tmp_path / "old")
    torch.save(tensors, folder / "pytorch_model.bin")
    assert fault(WeightError, lambda: convert(str(folder), tmp_path / "new", dtype="float16")) == (
        "tensor semantic.lm_head.weight has values up to 1e+06, too large for float16: use bfloat16"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "int8"}, "dtype is 'int8', must be one of keep, float32, float16, bfloat16"),
        ({"destination": "gs://b/x"}, "destination 'gs://b/x' is a URL: convert into a folder, then copy it there"),
        ({"revision": "main"}, "revision is 'main', but {source!r} is no hub name: leave it out"),
        ({"codec": "x"}, "codec is 'x', but {source} is in HF's layout and has its own: leave it out"),
        ({"tokenizer": "x"}, "tokenizer is 'x', but {source} is in HF's layout and has its own: leave it out"),
        ({"destination": "{source}"}, "destination {source!r} is the source itself: give another folder"),
        ({"destination": "{source}/config.json"}, "destination '{source}/config.json' is a file: give a folder"),
    ],
)
def test_refused_options(folders, tmp_path, options, says):
    source = str(folders["tiny"].folder)
    options = {"destination": str(tmp_path / "new")} | {k: v.replace("{source}", source) for k, v in options.items()}
    message = fault(CheckpointError, lambda: convert(source, **options))
    assert message == says.replace("{source!r}", repr(source)).replace("{source}", source)


class Touch:
    """A pickle that writes a file when it is loaded without care."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Run(Touch):
    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize(("kind", "named"), [(Touch, "getattr"), (Run, "eval")])
@pytest.mark.parametrize("new_format", [True, False])
def test_pickle_with_code_does_not_run(folders, tmp_path, kind, named, new_format):
    folder = copy_without_weights(folders["tiny"].folder, tmp_path / "evil")
    touched, path = tmp_path / "touched", folder / "pytorch_model.bin"
    torch.save({"semantic.x": kind(touched)}, path, _use_new_zipfile_serialization=new_format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.load(path, weights_only=False)
    assert touched.exists(), "the pickle is harmless: the test proves nothing"
    touched.unlink()
    for read in (Checkpoint.open(str(folder)).tensors, lambda _: read_suno_file(path), lambda _: read_torch_file(path)):
        message = fault(CheckpointError, read, "semantic")
        assert message.startswith(f"{path} holds {named}")
        assert message.endswith(", which is no tensor: refused, no code was run")
    assert not touched.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 60, b"\x80\x02" + b"(" * 50])
def test_damaged_torch_file(tmp_path, content):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    assert fault(CheckpointError, read_torch_file, path) == (
        f"{path} cannot be read as a torch file: damaged or of another format"
    )


def test_truncated_torch_file(folders, tmp_path):
    path = as_torch_bin(folders["tiny"].folder, tmp_path / "old") / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-500])
    assert "cannot be read as a torch file" in fault(CheckpointError, read_torch_file, path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], " holds a list, must be named tensors"),
        ({"a": 1}, " holds 'a' of type int, must be named tensors"),
        ({1: torch.ones(2)}, " holds '1' of type Tensor, must be named tensors"),
        pytest.param(
            {"a": torch.ones(2).to_sparse()},
            ": tensor a is sparse or quantized, must be dense",
            marks=pytest.mark.filterwarnings("ignore:Validating sparse tensor"),
        ),
        ({"a": torch.ones(2, dtype=torch.float8_e4m3fn)}, ": tensor a has dtype torch.float8_e4m3fn, must be float"),
    ],
)
def test_torch_files_of_other_things(tmp_path, content, says):
    path = tmp_path / "x.bin"
    torch.save(content, path)
    assert fault(CheckpointError, read_torch_file, path) == f"{path}{says}"


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_torch_bits(tmp_path, dtype, new_format):
    values = torch.tensor([[1.0, -2.5], [3e-5, 7.0]]).to(dtype)
    torch.save({"a": values, "b": values.T}, tmp_path / "x.bin", _use_new_zipfile_serialization=new_format)
    read = read_torch_file(tmp_path / "x.bin")
    assert read["a"].dtype == {torch.bfloat16: ml_dtypes.bfloat16}.get(dtype, read["a"].dtype)
    assert np.array_equal(read["a"].astype("f4"), values.float().numpy())
    assert np.array_equal(read["b"].astype("f4"), values.float().numpy().T)
