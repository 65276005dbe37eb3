"""Old checkpoint formats into HF's layout. The only module that imports torch (extra `[convert]`), and only to read.

    source                                           read as
    hub name                                         fetched, then a folder in HF's layout
    folder in HF's layout                            .bin or safetensors, written anew as one safetensors
    folder with Suno's text_2.pt, coarse_2.pt,       suno.py's names; codec and tokenizer come from beside them,
    fine_2.pt (small: text.pt, coarse.pt, fine.pt)   from other folders, or from hub names

torch reads with `weights_only=True`, always: a pickle that holds code is refused and its code does not run.
"""

import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bark_model.checkpoint import PARTS, Checkpoint, CheckpointError, is_hub_name, resolve, save, stored, weight_files
from bark_model.config import BarkConfig, ConfigError, read_json
from bark_model.encodec.config import CodecConfig, CodecConfigError
from bark_model.fetch import cached_hub
from bark_model.suno import SUNO_FILES, hf_codec_names, hf_names, suno_config, suno_paths
from bark_model.voices import preset_files
from bark_model.weights import IGNORED_SUFFIXES, WeightError, drop_tied_heads, part_parameters

DTYPES = ("keep", "float32", "float16", "bfloat16")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
CODEC_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
_REFUSED = re.compile(r"(?:GLOBAL|class|operand type) ([\w.]+)")


def _import_torch(path: Path):
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(f"reading {path} needs torch: pip install 'bark-beam[convert]'") from error
    return torch


def _load(path: Path, safe_globals: Sequence[Any] = ()) -> Any:
    """What a torch file holds, its tensors mapped from disk where the format allows; every fault is one line."""
    torch = _import_torch(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: fetch it again")
    try:
        with torch.serialization.safe_globals(list(safe_globals)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever strange bytes make torch raise
        message = " ".join(str(error).split())
        refused = _REFUSED.search(message) if "nsupported" in message else None
        if refused:
            raise CheckpointError(f"{path} holds {refused[1]}, which is no tensor: refused, no code was run") from error
        raise CheckpointError(f"{path} cannot be read as a torch file: damaged or of another format") from error


def _to_numpy(path: Path, name: object, value: Any) -> np.ndarray:
    torch = _import_torch(path)
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        raise CheckpointError(f"{path} holds {str(name)[:80]!r} of type {type(value).__name__}, must be named tensors")
    if value.layout != torch.strided or value.is_quantized:
        raise CheckpointError(f"{path}: tensor {name} is sparse or quantized, must be dense")
    value = value.detach()
    if value.dtype == torch.bfloat16:  # numpy has none of its own
        import ml_dtypes

        return value.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    try:
        return value.numpy()
    except TypeError as error:
        raise CheckpointError(f"{path}: tensor {name} has dtype {value.dtype}, must be float") from error


def _as_arrays(path: Path, state: Any) -> dict[str, np.ndarray]:
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, must be named tensors")
    return {name: _to_numpy(path, name, value) for name, value in state.items()}


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a `pytorch_model.bin` or another saved state dict, names as stored, bfloat16 as ml_dtypes'.

    Raises CheckpointError for a damaged file, for a pickle with anything but tensors, and without torch.
    """
    return _as_arrays(Path(path), _load(Path(path)))


def read_suno_file(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """`model_args` and the tensors of one of Suno's files, whose training state holds numpy scalars."""
    path, scalar = Path(path), np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32")]
    # Suno's files name the function as numpy 1 did.
    content = _load(path, [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *dtypes])
    if not isinstance(content, Mapping) or not isinstance(content.get("model_args"), Mapping):
        raise CheckpointError(f"{path} has no model_args: not one of Suno's files")
    arguments = {str(key): _plain(value) for key, value in content["model_args"].items()}
    return arguments, _as_arrays(path, content.get("model"))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def convert(
    source: str,
    destination: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "keep",
    codec: str | None = None,
    tokenizer: str | None = None,
) -> Checkpoint:
    """Writes a checkpoint as safetensors with SHA256SUMS, its tokenizer and voices beside them, and returns it.

    dtype: keep, float32, float16 or bfloat16, of the transformers; the codec stays as it is. `codec` and `tokenizer`
    are for Suno's format only: a folder, an `encodec_24khz-*.th`, or a hub name; without them they are looked for in
    the source. All tensors are checked before anything is written. Raises CheckpointError, ConfigError, WeightError
    or VoiceError.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype is {dtype!r}, must be one of {', '.join(DTYPES)}")
    if "://" in str(destination):
        raise CheckpointError(f"destination {str(destination)!r} is a URL: convert into a folder, then copy it there")
    target = Path(destination)
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"destination {str(target)!r} is a file: give a folder")
    folder = _source_folder(source, revision)
    if target.resolve() == folder.resolve():
        raise CheckpointError(f"destination {str(target)!r} is the source itself: give another folder")
    if suno_paths(folder) and not (folder / "config.json").is_file():
        return _convert_suno(folder, target, dtype, codec, tokenizer)
    for name, value in (("codec", codec), ("tokenizer", tokenizer)):
        if value is not None:
            raise CheckpointError(f"{name} is {value!r}, but {folder} is in HF's layout and has its own: leave it out")
    return _convert_hf(folder, target, dtype)


def _source_folder(source: str, revision: str | None) -> Path:
    if not Path(source).is_dir() and is_hub_name(source):
        return cached_hub(source, revision, download=True)
    if revision is not None:
        raise CheckpointError(f"revision is {revision!r}, but {source!r} is no hub name: leave it out")
    return resolve(source)


def _convert_hf(folder: Path, target: Path, dtype: str) -> Checkpoint:
    checkpoint = Checkpoint.open(str(folder))
    tensors: dict[str, np.ndarray] = {}
    for part in PARTS:
        tensors |= _checked(checkpoint.config, part, checkpoint.tensors(part), dtype)
    _copy(folder, target, [*TOKENIZER_FILES, *preset_files(folder)])
    config, generation = read_json(folder / "config.json"), read_json(folder / "generation_config.json")
    return save(target, checkpoint.config, tensors, (_without_dtypes(config), generation))


def _without_dtypes(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without what it says of its weights' dtype: the tensors say it themselves."""
    return {
        key: _without_dtypes(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in ("dtype", "torch_dtype")
    }


def _convert_suno(folder: Path, target: Path, dtype: str, codec: str | None, tokenizer: str | None) -> Checkpoint:
    paths = suno_paths(folder)
    missing = [" or ".join(names) for part, names in SUNO_FILES.items() if part not in paths]
    if missing:
        raise CheckpointError(f"{folder} has no {', no '.join(missing)}: all three of one size are needed")
    tokenizer_folder = _find_tokenizer(folder, tokenizer)
    codec_config, codec_tensors = _read_codec(folder, codec)
    read = {part: read_suno_file(path) for part, path in paths.items()}
    generation = folder / "generation_config.json"  # Suno has none: for a model of other constants
    config = suno_config(
        {part: arguments for part, (arguments, _) in read.items()},
        codec_config,
        read_json(generation) if generation.is_file() else None,
    )
    tensors = _checked(config, "codec", codec_tensors, dtype)
    for part, (_, given) in read.items():
        tensors |= _checked(config, part, hf_names(given), dtype)
    _copy(tokenizer_folder, target, TOKENIZER_FILES)
    return save(target, config, tensors)


def _find_tokenizer(folder: Path, given: str | None) -> Path:
    places = [folder, folder / "tokenizer", folder / "bert-base-multilingual-cased"]
    if given is not None:
        local = Path(given)
        places = [local if local.is_dir() else cached_hub(given, download=True, patterns=TOKENIZER_FILES)]
    for place in places:
        if any((place / name).is_file() for name in TOKENIZER_FILES[:2]):
            return place
    raise CheckpointError(
        f"{places[0]} has no tokenizer.json and no vocab.txt, Suno's format needs one: "
        "give tokenizer, a folder or google-bert/bert-base-multilingual-cased"
    )


def _find_codec(folder: Path, given: str | None) -> Path:
    """An EnCodec checkpoint: Facebook's `.th` file, or a folder in HF's layout."""
    if given is not None:
        local = Path(given)
        return local if local.exists() else cached_hub(given, download=True, patterns=CODEC_FILES)
    folders = [place for place in (folder / "encodec_24khz", folder / "encodec") if place.is_dir()]
    for place in [*sorted(folder.glob("encodec_24khz*.th")), *folders]:
        return place
    raise CheckpointError(
        f"{folder} has no encodec_24khz-*.th and no folder encodec_24khz, Suno's format needs one: "
        "give codec, such a file or folder or facebook/encodec_24khz"
    )


def _read_codec(folder: Path, given: str | None) -> tuple[CodecConfig, dict[str, np.ndarray]]:
    path = _find_codec(folder, given)
    if path.is_file():
        return CodecConfig(), read_torch_file(path)
    try:
        config = CodecConfig.from_json(read_json(path / "config.json"))
    except CodecConfigError as error:
        raise ConfigError(f"{path / 'config.json'}: {error}") from error
    return config, {name: load() for file in weight_files(path) for name, _, load in stored(file)}


def _checked(config: BarkConfig, part: str, given: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """A part's tensors under their full names, ready to be written; the same checks as on loading."""
    tensors = dict(hf_codec_names(given) if part == "codec" else given)
    part_parameters(config, part, tensors)
    if part == "fine":
        tensors = dict(drop_tied_heads(config.fine, tensors))
    return {
        PARTS[part] + name: array if part == "codec" or dtype == "keep" else _cast(PARTS[part] + name, array, dtype)
        for name, array in tensors.items()
        if not name.endswith(IGNORED_SUFFIXES)
    }


def _cast(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    import ml_dtypes  # noqa: F401 (numpy knows bfloat16 from here on)

    with np.errstate(over="ignore"):
        cast = array.astype(np.dtype(dtype))
    if not np.isfinite(cast).all():
        raise WeightError(
            f"tensor {name} has values up to {np.abs(array).max():g}, too large for {dtype}: use bfloat16"
        )
    return cast


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    """Copies those of the files that are there."""
    for name in names:
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
