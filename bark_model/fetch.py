"""Checkpoints from elsewhere: the Hugging Face cache and object stores. huggingface_hub and fsspec load only here."""

import hashlib
import os
from pathlib import Path

from bark_model.checkpoint import TEXT_FILES, CheckpointError
from bark_model.voices import PRESET_INDEX

HUB_PATTERNS = (
    *TEXT_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
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


def cached_hub(name: str, revision: str | None = None, *, download: bool = False) -> Path:
    """A hub checkpoint's folder in the local Hugging Face cache; the network is touched only with `download`."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointError(f"{name!r} is a hub name: pip install huggingface_hub to use it") from error
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(HUB_PATTERNS), local_files_only=not download)
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        if download:
            raise CheckpointError(f"{name!r} cannot be fetched from the hub: {str(error).splitlines()[0]}") from error
        raise CheckpointError(
            f"checkpoint {name!r} is not in the local cache: run `bark-beam weights convert {name} FOLDER` "
            "with a network once, then use the folder"
        ) from error


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
    if not listed:
        raise CheckpointError(f"checkpoint {url!r} holds no file: is the URL right?")
    marks = ("size", "crc32c", "md5Hash", "etag", "ETag", "generation", "mtime")
    state = [(path, [str(details.get(mark)) for mark in marks]) for path, details in sorted(listed.items())]
    folder = cache_folder() / "checkpoints" / hashlib.sha256(repr((url, state)).encode()).hexdigest()[:24]
    for path in sorted(listed):
        relative = path.removeprefix(root.rstrip("/") + "/")
        target = folder / relative
        if not target.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"checkpoint {url!r} holds the path {relative!r}, which leaves its folder: refused")
        if target.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            filesystem.get_file(path, str(partial))
        except Exception as error:
            raise CheckpointError(f"{url}/{relative} cannot be fetched: {error}") from error
        os.replace(partial, target)
    return folder
