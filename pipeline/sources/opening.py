"""Shards as byte streams: decompressed while they are read, and compared with the plan's identity at their end."""

import base64
import gzip
import hashlib
import io
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa

from pipeline.errors import UsageError, excerpt
from pipeline.sources.shards import Shard, SourceError, changed, check_unchanged, one_line
from pipeline.store.errors import StoreError
from pipeline.store.filesystems import filesystem, is_local

COPY_LIMIT_BYTES = 32 << 30
"""A Parquet shard that is remote or compressed is copied to a temporary file first; a larger one is refused."""

_BLOCK_BYTES = 1 << 18


@contextmanager
def faults_named(shard: Shard) -> Iterator[None]:
    """Turns what a library raises about a shard's bytes into a SourceError that names the shard."""
    try:
        yield
    except UsageError:
        raise
    except (OSError, EOFError, zlib.error, pa.ArrowException, StoreError) as error:
        raise SourceError(f"input file {excerpt(shard.uri, 200)} cannot be read: {one_line(error)}") from error


@contextmanager
def open_shard(shard: Shard, compression: str) -> Iterator[BinaryIO]:
    """The shard's bytes in order, decompressed ("", ".gz" or ".zst"), in bounded memory.

    SourceError: it cannot be opened, is truncated or damaged, or was changed since it was listed. What is compared
    at the end (sha256, crc32c) is known only there: bytes before a SourceError may be wrong.
    """
    with faults_named(shard), _raw(shard) as raw:
        if compression == ".gz":
            with gzip.GzipFile(fileobj=raw) as stream:
                yield cast(BinaryIO, stream)
        elif compression == ".zst":
            # pyarrow's reader bounds its output and its window (128 MiB) and notices a truncated frame.
            yield io.BufferedReader(cast(Any, pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")), _BLOCK_BYTES)
        else:
            yield raw


@contextmanager
def open_seekable(shard: Shard, compression: str) -> Iterator[BinaryIO]:
    """The shard's bytes as a file to seek in: a local plain file itself, anything else as a temporary copy.

    SourceError as `open_shard`, before any byte is used, and for a copy over COPY_LIMIT_BYTES.
    """
    if is_local(shard.uri) and not compression:
        check_unchanged(shard)
        with faults_named(shard), open(filesystem(shard.uri)[1], "rb") as file:
            yield file
        return
    with faults_named(shard), tempfile.TemporaryFile() as copy:
        with open_shard(shard, compression) as stream:
            while block := stream.read(_BLOCK_BYTES):
                copy.write(block)
                if copy.tell() > COPY_LIMIT_BYTES:
                    raise SourceError(
                        f"input file {excerpt(shard.uri, 200)} holds over {COPY_LIMIT_BYTES >> 30} GiB: split it"
                    )
        copy.seek(0)
        yield cast(BinaryIO, copy)


@contextmanager
def _raw(shard: Shard) -> Iterator[BinaryIO]:
    """The stored bytes in order, checked against the shard's size and identity."""
    checksum = _checksum(shard)
    if checksum is None:
        check_unchanged(shard)
    fs, path = filesystem(shard.uri)
    with fs.open(path, "rb") as raw, io.BufferedReader(_Checked(raw, shard, checksum), _BLOCK_BYTES) as stream:
        yield cast(BinaryIO, stream)


class _Checksum(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


def _checksum(shard: Shard) -> _Checksum | None:
    """What adds up the bytes into the shard's identity; None when its identity is no checksum."""
    if shard.identity.startswith("sha256:"):
        return hashlib.sha256()
    if shard.identity.startswith("crc32c:"):
        import google_crc32c  # comes with the extra that gs:// needs

        return google_crc32c.Checksum()
    return None


class _Checked(io.RawIOBase):
    """Passes bytes on and, before the last of them, compares size and checksum with the shard's."""

    def __init__(self, raw: Any, shard: Shard, checksum: _Checksum | None):
        self._raw, self._shard, self._checksum, self._seen = raw, shard, checksum, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._raw.read(len(buffer))
        buffer[: len(block)] = block
        self._seen += len(block)
        if self._checksum is not None:
            self._checksum.update(block)
        if not block or self._seen >= self._shard.size_bytes:
            self._compare()
        return len(block)

    def _compare(self) -> None:
        if self._seen != self._shard.size_bytes:
            raise SourceError(changed(self._shard))
        if self._checksum is not None:
            found = self._checksum.digest()
            if self._shard.identity.split(":")[1] not in (found.hex(), base64.b64encode(found).decode()):
                raise SourceError(changed(self._shard))
