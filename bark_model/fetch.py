"""Checkpoints from elsewhere: the Hugging Face cache and object stores. huggingface_hub loads only here."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

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
    from bark_model.object_store import ObjectStore

    store = ObjectStore(url)
    wanted = _wanted(store.files)
    if not wanted:
        raise CheckpointError(f"checkpoint {url!r} holds no file of a checkpoint: is the URL right?")
    marks = ("size", "crc32c", "md5Hash", "etag", "ETag", "generation", "mtime")
    state = [(name, [str(store.files[name].get(mark)) for mark in marks]) for name in wanted]
    folder = cache_folder() / "checkpoints" / hashlib.sha256(repr((store.url, state)).encode()).hexdigest()[:24]
    for name in wanted:
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"checkpoint {url!r} holds the path {name!r}, which leaves its folder: refused")
        if not target.is_file():
            store.copy(name, target)
    return folder


def _wanted(names: Iterable[str]) -> list[str]:
    """The files of a checkpoint among relative names; torch's weights only where there are no safetensors."""
    kept = sorted(name for name in names if any(fnmatch(name, pattern) for pattern in HUB_PATTERNS))
    if any(name.endswith(".safetensors") for name in kept):
        kept = [name for name in kept if not name.startswith("pytorch_model")]
    return kept
