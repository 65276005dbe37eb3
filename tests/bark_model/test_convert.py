"""Every format a checkpoint comes in loads, transformers loads what we write, and the greedy tokens are equal."""

import json
import shutil
import warnings
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from bark_model import Bark, Checkpoint, CheckpointError, Request, Result, Sampling
from bark_model.checkpoint import PARTS
from bark_model.coarse import unflatten_ids
from bark_model.config import ConfigError
from bark_model.convert import convert, read_suno_file, read_torch_file
from bark_model.encodec.config import CodecConfig
from bark_model.networks import read_parameters
from bark_model.random_checkpoint import write_random
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
        assert np.array_equal(result.fine, reference.fine(np.array(coarse), request.voice)[0])


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


# --- Suno's format -------------------------------------------------------------------------------------------------

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


def assert_same_tensors(new: Checkpoint, old: Checkpoint) -> None:
    for part in PARTS:
        expected, found = old.tensors(part), new.tensors(part)
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected)


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
