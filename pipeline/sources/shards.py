"""Input shards: the files a pattern names, with a name that ids are made of and an identity that content changes."""

import hashlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from fsspec import AbstractFileSystem

from pipeline.errors import UsageError, excerpt
from pipeline.store.errors import StoreError
from pipeline.store.filesystems import filesystem, is_local

RECORD_FORMATS = (".txt", ".jsonl", ".csv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
HASHED_LIMIT_BYTES = 64 << 20
"""Local shards up to this size are identified by their sha256: 0.1 s of planning for the largest."""

_MAGIC = "*?["
_HIDDEN = (".", "_")
_BLOCK_BYTES = 1 << 20


class SourceError(UsageError):
    """An input that is not there, or a shard that cannot be read as a whole; the message names it.

    When a shard raises it while being read, nothing that it yielded before may be used.
    """


@dataclass(frozen=True)
class Shard:
    """One input file.

    `name` is its path below the folder that the patterns share, as in `en/part-3.txt`: ids of records without one
    are made of it, so it is the same on another disk or in a bucket, and no two shards of a job share one.
    `identity` is `sha256:…`, `crc32c:…`, `mtime:…` or `key:…`, and differs whenever the content does:

    - Cloud Storage: the object's crc32c and size, so that a copied or re-uploaded equal object stays the same;
    - a local file up to HASHED_LIMIT_BYTES: its sha256, whatever its times say;
    - a larger local file: size and modification time in ns. Touching it costs a new plan, in which its records are
      known again by their text; only a change in place that keeps size and time goes unseen;
    - elsewhere: what fsspec says identifies the file (an ETag, for one).
    """

    uri: str
    size_bytes: int
    identity: str
    name: str


def list_shards(patterns: str | Sequence[str], formats: Sequence[str] = RECORD_FORMATS) -> tuple[Shard, ...]:
    """The shards of one or more paths or globs, each once, sorted by URI.

    Globs pass over names that start with `.` or `_` unless they say so themselves: other tools leave such files
    (`_SUCCESS`, `.part-0.crc`) beside data.
    SourceError: nothing matches, a folder, an extension that is not in `formats` (plain, .gz or .zst).
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise SourceError("input names no file: give a path or a glob")
    found: dict[str, tuple[AbstractFileSystem, str, dict]] = {}
    for pattern in patterns:
        found.update(_matches(pattern))
    root = _common_folder([_fixed_folder(pattern) for pattern in patterns])
    return tuple(_shard(uri, *found[uri], root=root, formats=formats) for uri in sorted(found))


def _matches(pattern: str) -> dict[str, tuple[AbstractFileSystem, str, dict]]:
    """URI -> (file system, path, info) of the files a pattern names."""
    fs, path = filesystem(pattern)
    prefix = _prefix(pattern, path)
    try:
        # A file of exactly this name comes before its reading as a glob: `take[1].txt` is a fair name.
        if fs.isfile(path):
            return {prefix + path: (fs, path, fs.info(path))}
        if not any(sign in path for sign in _MAGIC):
            is_folder = fs.isdir(path)
            remedy = f"write {pattern.rstrip('/')}/* for its files" if is_folder else "check the path"
            raise SourceError(f"input {excerpt(pattern, 200)} is {'a folder' if is_folder else 'no file'}: {remedy}")
        infos = cast(dict[str, dict], fs.glob(path, detail=True))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"input {excerpt(pattern, 200)} cannot be listed ({one_line(error)}): check its name and the network"
        ) from error
    hidden = () if _base(path).startswith(_HIDDEN) else _HIDDEN
    files = {
        prefix + found: (fs, found, info)
        for found, info in infos.items()
        if info["type"] == "file" and not _base(found).startswith(hidden)
    }
    if not files:
        raise SourceError(f"input {excerpt(pattern, 200)} matches no file: check the path and the glob")
    return files


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def one_line(error: BaseException) -> str:
    """What an exception says, in one short line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _prefix(pattern: str, path: str) -> str:
    """What makes a URI of a file system's path; some, such as http, keep theirs in it."""
    return "" if is_local(pattern) or "://" in path else f"{pattern.partition('://')[0]}://"


def _fixed_folder(pattern: str) -> str:
    """The folder of a pattern before its first glob sign, as an absolute path or URI."""
    path = filesystem(pattern)[1]
    path = _prefix(pattern, path) + path
    first_magic = min((path.find(sign) for sign in _MAGIC if sign in path), default=len(path))
    return path[:first_magic].rpartition("/")[0]


def _common_folder(folders: list[str]) -> str:
    levels = zip(*(folder.split("/") for folder in folders), strict=False)
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, levels)
    return "/".join(parts[0] for parts in shared)


def _shard(uri: str, fs: AbstractFileSystem, path: str, info: dict, *, root: str, formats: Sequence[str]) -> Shard:
    split_format(uri, formats)
    try:
        uri.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"input file {excerpt(uri, 200)} has a name that is not UTF-8: rename it") from error
    name = uri[len(root) :].lstrip("/") if uri.startswith(root) else uri.partition("://")[2] or uri
    try:
        return Shard(uri, info["size"], _identity(fs, path, info), name)
    except OSError as error:
        raise SourceError(f"input file {excerpt(uri, 200)} cannot be read: {one_line(error)}") from error


def split_format(name: str, formats: Sequence[str] = RECORD_FORMATS) -> tuple[str, str]:
    """The format and the compression a file's name ends with, as in (".jsonl", ".gz"); "" for none."""
    lower = name.lower()
    compression = next((ending for ending in COMPRESSIONS if lower.endswith(ending)), "")
    plain = lower.removesuffix(compression)
    for ending in formats:
        if plain.endswith(ending):
            return ending, compression
    known = f"{', '.join(formats)}, each also with {' or '.join(COMPRESSIONS)}"
    raise SourceError(f"input file {excerpt(name, 200)} has an unknown extension: known are {known}")


def _identity(fs: AbstractFileSystem, path: str, info: dict) -> str:
    if "crc32c" in info:
        return f"crc32c:{info['crc32c']}:{info['size']}"
    if "file" not in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        return f"key:{fs.ukey(path)}"
    if info["size"] <= HASHED_LIMIT_BYTES:
        return f"sha256:{_sha256(fs, path)}"
    return f"mtime:{os.stat(path).st_mtime_ns}:{info['size']}"


def check_unchanged(shard: Shard) -> None:
    """SourceError when the shard's content is not the listed one. Costs a request, or reading the file for a sha256."""
    fs, path = filesystem(shard.uri)
    try:
        if shard.identity.startswith("sha256:"):
            found = f"sha256:{_sha256(fs, path)}"
        else:
            found = _identity(fs, path, fs.info(path))
    except (OSError, StoreError) as error:
        raise SourceError(f"input file {excerpt(shard.uri, 200)} cannot be read: {one_line(error)}") from error
    if found != shard.identity:
        raise SourceError(changed(shard))


def _sha256(fs: AbstractFileSystem, path: str) -> str:
    digest = hashlib.sha256()
    with fs.open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(cast(bytes, block))
    return digest.hexdigest()


def changed(shard: Shard) -> str:
    """The message for a shard whose bytes are not those of the plan."""
    return f"input file {excerpt(shard.uri, 200)} was changed or damaged since the run was planned: start the run again"
