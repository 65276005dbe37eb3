"""Checkpoints from elsewhere: the Hugging Face cache and object stores. huggingface_hub and fsspec load only here."""

import hashlib
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from uuid import uuid4

from bark_model.checkpoint import TEXT_FILES, CheckpointError, weight_files
from bark_model.sums import SUMS
from bark_model.voices import PRESET_INDEX

HUB_PATTERNS = (
    *TEXT_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    SUMS,
    "*.safetensors",
    "*.index.json",
    "pytorch_model*.bin",
    PRESET_INDEX,
    "speaker_embeddings/**",
)


def cache_folder() -> Path:
    """Where fetched and generated checkpoints lie: BARK_BEAM_CACHE, else the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bark-beam"
    return Path(os.environ.get("BARK_BEAM_CACHE") or default)


def cached_hub(
    name: str, revision: str | None = None, *, download: bool = False, patterns: Sequence[str] = HUB_PATTERNS
) -> Path:
    """A hub checkpoint's folder in the local Hugging Face cache; the network is touched only with `download`."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointError(f"{name!r} is a hub name: pip install huggingface_hub to use it") from error
    try:
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=list(patterns), local_files_only=not download)
        )
        if not download:
            weight_files(folder)  # other tools leave folders of a few files in the same cache
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        if download:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"{name!r} cannot be fetched from the hub: {reason}") from error
        raise CheckpointError(
            f"checkpoint {name!r} is not in the local cache: run `bark-beam weights convert {name} FOLDER` "
            "with a network once, then use the folder"
        ) from error
    return folder


def cached_url(url: str) -> Path:
    """Copies the files of a checkpoint under a URL (gs://...) into the cache once.

    The folder's name is made of the listing (sizes, checksums, generations or times), so changed files are new ones.
    """
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # gcsfs stalls 45 s a call with it
    try:
        import fsspec
    except ImportError as error:
        raise CheckpointError(f"{url!r} is a URL: pip install fsspec (gcsfs for gs://) to use it") from error
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
        listed = filesystem.find(root, detail=True)
    except Exception as error:  # every filesystem raises its own
        raise CheckpointError(f"checkpoint {url!r} cannot be listed: {error}") from error
    wanted = _wanted({path.removeprefix(root.rstrip("/") + "/"): path for path in listed})
    if not wanted:
        raise CheckpointError(f"checkpoint {url!r} holds no file of a checkpoint: is the URL right?")
    marks = ("size", "crc32c", "md5Hash", "etag", "ETag", "generation", "mtime")
    state = [(name, [str(listed[path].get(mark)) for mark in marks]) for name, path in sorted(wanted.items())]
    folder = cache_folder() / "checkpoints" / hashlib.sha256(repr((url, state)).encode()).hexdigest()[:24]
    for name, path in sorted(wanted.items()):
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"checkpoint {url!r} holds the path {name!r}, which leaves its folder: refused")
        if not target.is_file():
            _fetch(filesystem, path, target, listed[path].get("size"), f"{url.rstrip('/')}/{name}")
    return folder


def _wanted(paths: dict[str, str]) -> dict[str, str]:
    """The files of a checkpoint among relative names; torch's weights only where there are no safetensors."""
    kept = {name: path for name, path in paths.items() if any(fnmatch(name, pattern) for pattern in HUB_PATTERNS)}
    if any(name.endswith(".safetensors") for name in kept):
        kept = {name: path for name, path in kept.items() if not name.startswith("pytorch_model")}
    return kept


def _fetch(filesystem: Any, path: str, target: Path, size: int | None, shown: str) -> None:
    """Copies one file; the target's name appears with the whole content or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid4().hex}.partial")
    try:
        filesystem.get_file(path, str(partial))
        found = partial.stat().st_size
    except Exception as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"{shown} cannot be fetched: {error}") from error
    if size is not None and found != size:
        partial.unlink()
        raise CheckpointError(f"{shown} came with {found} bytes, its listing says {size}: try again")
    os.replace(partial, target)
