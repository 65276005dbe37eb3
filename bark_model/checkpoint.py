"""Checkpoint folders in HF's layout, in and out: names to folders, files to tensors, sums. Free of jax and torch.

config.json  generation_config.json  tokenizer.json   model.safetensors (or shards with an index, or
pytorch_model.bin)   speaker_embeddings_path.json + .npy   SHA256SUMS (written by us, checked when present)
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bark_model.config import BarkConfig, ConfigError, read_json
from bark_model.config_json import config_json, generation_json
from bark_model.weights import WeightError

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parent / "demo_checkpoint"
SUMS = "SHA256SUMS"
TEXT_FILES = ("config.json", "generation_config.json", "tokenizer.json", "vocab.txt")
PARTS = {"semantic": "semantic.", "coarse": "coarse_acoustics.", "fine": "fine_acoustics.", "codec": "codec_model."}


class CheckpointError(ValueError):
    """A checkpoint cannot be found or read; one line with the remedy."""


def resolve(name: str) -> Path:
    """The local folder of a checkpoint: `demo`, a folder, a URL such as gs://..., or a Hugging Face hub name."""
    if name == DEMO:
        if not DEMO_FOLDER.is_dir():
            from bark_model.random_checkpoint import demo_stand_in

            return demo_stand_in()
        return DEMO_FOLDER
    if "://" in name:
        from bark_model.fetch import cached_url

        return cached_url(name)
    if Path(name).is_dir():
        return Path(name)
    parts = name.split("/")
    if len(parts) == 2 and all(parts) and not name.startswith((".", "~")):
        from bark_model.fetch import cached_hub

        return cached_hub(name)
    raise CheckpointError(
        f"checkpoint {name!r} is no folder: give 'demo', a folder, gs://... or a hub name such as suno/bark"
    )


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, the first kind that is there; names from an index stay inside it."""
    for single, index in (
        ("model.safetensors", "model.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            try:
                shards = sorted({str(shard) for shard in read_json(folder / index)["weight_map"].values()})
            except (KeyError, AttributeError) as error:
                raise CheckpointError(f"{folder / index} has no weight_map: no index of weights") from error
            if any(PurePosixPath(shard).name != shard or shard.startswith(".") for shard in shards):
                raise CheckpointError(f"{folder / index} names a shard outside its folder: refused")
            return [folder / shard for shard in shards]
    raise CheckpointError(
        f"{folder} has no model.safetensors and no pytorch_model.bin: not a checkpoint in HF's layout"
    )


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _recorded_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    if not path.is_file():
        return {}
    lines = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {line[1].strip().lstrip("*"): line[0] for line in lines if len(line) == 2}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder. Opening reads the two JSON files only."""

    name: str
    folder: Path
    config: BarkConfig

    @classmethod
    def open(cls, name: str) -> "Checkpoint":
        folder = resolve(name)
        return cls(name, folder, BarkConfig.from_folder(folder))

    @cached_property
    def sums(self) -> dict[str, str]:
        """File name -> sha256 of all that decides results. Differences from SHA256SUMS are refused by name."""
        texts = [self.folder / name for name in TEXT_FILES if (self.folder / name).is_file()]
        sums = {path.name: _sha256(path) for path in [*texts, *weight_files(self.folder)]}
        for name, recorded in _recorded_sums(self.folder).items():
            if sums.get(name, recorded) != recorded:
                raise CheckpointError(
                    f"{self.folder / name} has sha256 {sums[name][:12]}..., {SUMS} says {recorded[:12]}...: "
                    "the file is damaged, fetch it again"
                )
        return sums

    @cached_property
    def sha256(self) -> str:
        """One digest of the weights, constants and tokenizer: the sha256 of the lines of SHA256SUMS."""
        return hashlib.sha256(_sums_text(self.sums).encode()).hexdigest()

    def tensors(self, part: str) -> dict[str, np.ndarray]:
        """The tensors of one part (a key of PARTS), names without their prefix."""
        prefix = PARTS[part]
        found = {}
        for path in weight_files(self.folder):
            for name, array in _read_tensors(path, prefix):
                found[name.removeprefix(prefix)] = array
        if not found:
            raise WeightError(f"no tensor {prefix}* in {self.folder}: not the weights of a Bark checkpoint")
        return found


def _read_tensors(path: Path, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    if path.suffix == ".bin":
        from bark_model.convert import read_torch_file

        yield from ((name, array) for name, array in read_torch_file(path).items() if name.startswith(prefix))
        return
    try:
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                if name.startswith(prefix):
                    yield name, tensors.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}: fetch or convert it again") from error


def _sums_text(sums: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def save(folder: str | Path, config: BarkConfig, tensors: Mapping[str, np.ndarray]) -> Checkpoint:
    """Writes a folder in HF's layout from tensors with HF's full names, and SHA256SUMS beside them.

    A tokenizer and voices are the caller's to copy first: sums cover what is there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", config_json(config)), ("generation_config.json", generation_json(config))):
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial = folder / "model.safetensors.partial"
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, partial, {"format": "pt"})
    os.replace(partial, folder / "model.safetensors")
    (folder / SUMS).unlink(missing_ok=True)
    checkpoint = Checkpoint(str(folder), folder, BarkConfig.from_folder(folder))
    (folder / SUMS).write_text(_sums_text(checkpoint.sums), encoding="utf-8")
    return checkpoint


__all__ = ["Checkpoint", "CheckpointError", "ConfigError", "resolve", "save", "weight_files"]
