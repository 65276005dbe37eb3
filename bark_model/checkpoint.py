"""Checkpoint folders in HF's layout, in and out: names to folders, files to tensors, sums. Free of jax and torch.

config.json  generation_config.json  tokenizer.json   model.safetensors (or shards with an index, or
pytorch_model.bin)   speaker_embeddings_path.json + .npy   SHA256SUMS (written by us, checked when present)
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bark_model.config import BarkConfig, ConfigError, read_json
from bark_model.config_json import config_json, generation_json
from bark_model.sums import SUMS, SumError, check_sum, recorded_sums, sha256_of, sums_text
from bark_model.voices import preset_files
from bark_model.weights import WeightError

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo_checkpoint"
TEXT_FILES = ("config.json", "generation_config.json", "tokenizer.json", "vocab.txt")
SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
PARTS = {"semantic": "semantic.", "coarse": "coarse_acoustics.", "fine": "fine_acoustics.", "codec": "codec_model."}


RANDOM_WEIGHTS = "random_weights"
"""The key of generation_config.json by which random_checkpoint.py marks what it makes."""


class CheckpointError(ValueError):
    """A checkpoint cannot be found or read; one line with the remedy."""


def resolve(name: str) -> Path:
    """The local folder of a checkpoint: `demo`, a folder, a URL such as gs://..., or a Hugging Face hub name."""
    if name == DEMO:
        return DEMO_FOLDER
    if "://" in name:
        from bark_model.fetch import cached_url

        return cached_url(name)
    if name and Path(name).is_dir():  # an empty name would be the working directory
        return Path(name)
    if is_hub_name(name):
        from bark_model.fetch import cached_hub

        return cached_hub(name)
    raise CheckpointError(
        f"checkpoint {name!r} is no folder: give 'demo', a folder, gs://... or a hub name such as suno/bark"
    )


def is_hub_name(name: str) -> bool:
    """Whether a name has the form OWNER/NAME and is no path on purpose (./x, ~/x, /x)."""
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~"))


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, the first kind that is there; names from an index stay inside it."""
    for single in (SAFETENSORS, TORCH):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / f"{single}.index.json").is_file():
            return _shards(folder, f"{single}.index.json")
    if list(folder.glob("text*.pt")):
        raise CheckpointError(f"{folder} has Suno's own format: run `bark-beam weights convert {folder} FOLDER` first")
    raise CheckpointError(f"{folder} has no {SAFETENSORS} and no {TORCH}: not a checkpoint in HF's layout")


def _shards(folder: Path, index: str) -> list[Path]:
    try:
        weight_map = read_json(folder / index)["weight_map"]
        shards = sorted({str(shard) for shard in weight_map.values()})
    except (KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder / index} has no weight_map: no index of weights") from error
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    for shard in shards:
        if PurePosixPath(shard).name != shard or shard.startswith("."):
            raise CheckpointError(f"{folder / index} names the shard {shard[:80]!r} outside its folder: refused")
        if not (folder / shard).is_file():
            raise CheckpointError(f"{folder / shard} is missing, {index} names it: fetch it again")
    return [folder / shard for shard in shards]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder. Opening reads the two JSON files only."""

    name: str
    folder: Path
    config: BarkConfig

    @classmethod
    def open(cls, name: str) -> "Checkpoint":
        """By any name that `resolve` knows."""
        folder = resolve(name)
        if not (folder / "config.json").is_file():
            weight_files(folder)  # an empty folder and Suno's own format have a better message than a missing JSON
        return cls(name, folder, BarkConfig.from_folder(folder))

    @cached_property
    def has_random_weights(self) -> bool:
        """Whether nobody trained this checkpoint: its audio is noise, and users are told."""
        return read_json(self.folder / "generation_config.json").get(RANDOM_WEIGHTS) is True

    @cached_property
    def sums(self) -> dict[str, str]:
        """File name -> sha256 of all that decides results. Differences from SHA256SUMS are refused by name."""
        names = [name for name in TEXT_FILES if (self.folder / name).is_file()]
        names += [path.name for path in weight_files(self.folder)]
        try:
            recorded = recorded_sums(self.folder)
            sums = {name: sha256_of(self.folder / name) for name in names}
            for name, found in sums.items():
                check_sum(self.folder, name, found, recorded)
        except SumError as error:
            raise CheckpointError(str(error)) from error
        lost = [name for name in recorded if name in TEXT_FILES and name not in sums]
        if lost:
            raise CheckpointError(f"{self.folder / lost[0]} is missing, {SUMS} lists it: fetch it again")
        return sums

    @cached_property
    def sha256(self) -> str:
        """One digest of the weights, constants and tokenizer: the sha256 of their lines of SHA256SUMS."""
        return hashlib.sha256(sums_text(self.sums).encode()).hexdigest()

    def tensors(self, part: str) -> dict[str, np.ndarray]:
        """The tensors of one part (a key of PARTS), names without their prefix, as stored.

        What SHA256SUMS says about the files is checked before the first tensor is used.
        """
        if (self.folder / SUMS).is_file():
            _ = self.sums
        prefix = PARTS[part]
        found: dict[str, np.ndarray] = {}
        for path in weight_files(self.folder):
            for name, shape, load in stored(path):
                _check_owner(name, shape)
                if not name.startswith(prefix):
                    continue
                if name.removeprefix(prefix) in found:
                    raise WeightError(f"tensor {name} is in two files of {self.folder}: convert it again")
                found[name.removeprefix(prefix)] = load()
        if not found:
            raise WeightError(f"no tensor {prefix}* in {self.folder}: not the weights of a Bark checkpoint")
        return found


def _check_owner(name: str, shape: tuple[int, ...]) -> None:
    if not name.startswith(tuple(PARTS.values())):
        raise WeightError(f"tensor {name} of shape {shape} is unknown: it belongs to no part of Bark")


def stored(path: Path) -> Iterator[tuple[str, tuple[int, ...], Callable[[], np.ndarray]]]:
    """Name and shape of each tensor of a file, and what reads it; to be called before the next one is asked for."""
    if path.suffix == ".bin":
        from bark_model.convert import read_torch_file

        for name, array in read_torch_file(path).items():
            yield name, array.shape, partial(np.asarray, array)
        return
    import ml_dtypes  # noqa: F401 (numpy knows bfloat16 from here on)

    try:
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                yield name, tuple(tensors.get_slice(name).get_shape()), partial(_read_tensor, tensors, name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}: fetch or convert it again") from error


def _read_tensor(tensors: Any, name: str) -> np.ndarray:
    try:
        return tensors.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"tensor {name} cannot be read: {error}: fetch or convert it again") from error
    except (TypeError, AttributeError) as error:  # a dtype that numpy has not
        dtype = tensors.get_slice(name).get_dtype()
        raise WeightError(f"tensor {name} has dtype {dtype}, must be float32, float16 or bfloat16") from error


def save(
    folder: str | Path,
    config: BarkConfig,
    tensors: Mapping[str, np.ndarray],
    extra: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> Checkpoint:
    """Writes a folder in HF's layout from tensors with HF's full names, and SHA256SUMS beside them.

    A tokenizer and voices are the caller's to copy first: sums cover what is there. `extra`: keys of another
    config.json and generation_config.json that are kept where ours say nothing. Until the last write the folder has
    no weights or no sums, never those of another checkpoint.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (SUMS, SAFETENSORS):
        (folder / stale).unlink(missing_ok=True)
    contents = {
        "config.json": config_json(config, extra[0]),
        "generation_config.json": generation_json(config, extra[1]),
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    unfinished = folder / f"{SAFETENSORS}.partial"
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, unfinished, {"format": "pt"})
    os.replace(unfinished, folder / SAFETENSORS)
    checkpoint = Checkpoint(str(folder), folder, BarkConfig.from_folder(folder))
    voices = {name: sha256_of(folder / name) for name in preset_files(folder)}
    (folder / SUMS).write_text(sums_text(checkpoint.sums | voices), encoding="utf-8")
    return checkpoint


__all__ = ["PARTS", "Checkpoint", "CheckpointError", "ConfigError", "resolve", "save", "weight_files"]
