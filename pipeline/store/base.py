"""The few operations an output needs of a store. Two faces implement them: a local disk and Google Cloud Storage.

Paths are relative to the store's URI, with `/` between parts. Files are created once and never change; only
`replace` gives a file new content, by compare-and-swap, for the manifest and a few small files beside it.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeVar

from pipeline.store.errors import BadPath, Conflict, Corrupt, NotFound

Content: TypeAlias = bytes | Path
"""What is written: bytes, or a local file that is too large to hold in memory."""

Given = TypeVar("Given")
Got = TypeVar("Got")

_PATH_LIMIT_BYTES = 1024  # an object name of Google Cloud Storage
_PART_LIMIT_BYTES = 255  # a file name of ext4, XFS, APFS and NTFS
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A stored file: its path in the store and its size in bytes."""

    path: str
    size: int


def check_path(path: str) -> list[str]:
    """The parts of a store path; BadPath when one could leave the store or confuse a tool."""
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", "..") or "\\" in part or not part.isprintable():
            raise BadPath(f"path {path[:80]!r} has the part {part[:80]!r}: use plain relative names joined by '/'")
        if len(part.encode()) > _PART_LIMIT_BYTES:
            raise BadPath(f"path {path[:80]!r} has a part over {_PART_LIMIT_BYTES} bytes: shorten it")
    if len(path.encode()) > _PATH_LIMIT_BYTES:
        raise BadPath(f"path {path[:80]!r} is over {_PATH_LIMIT_BYTES} bytes: shorten it")
    return parts


class Store(ABC):
    """A folder of immutable files, local or remote. Threads may share one; processes open their own by its URI."""

    uri: str
    parallel: int = 1
    """How many operations at once pay off."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Bytes stored under the path, or None when there is nothing."""

    @abstractmethod
    def version(self, path: str) -> str | None:
        """What `replace` compares: changes whenever the content does. None when there is nothing."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """The file for reading and seeking, in bounded memory; NotFound, Corrupt when the store itself can tell."""

    @abstractmethod
    def create(self, path: str, content: Content) -> bool:
        """Writes a file that is whole or not there at all. True: created; False: equal content was there already.

        Conflict when other content is there: it stays as it is.
        """

    @abstractmethod
    def replace(self, path: str, content: bytes, *, expected: str) -> None:
        """Gives the file new content if its version still is `expected`; Conflict when it is not."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every file whose path starts with the prefix, in the order of their paths. A look, never the truth."""

    def sweep(self) -> int:
        """Removes what killed writers left behind, if this kind of store shows any; the number removed."""
        return 0

    def close(self) -> None:  # noqa: B027, nothing to do is right for a disk
        """Lets connections go."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def read(self, path: str, *, sha256: str | None = None) -> bytes:
        """The whole content; Corrupt when its sha256 is another than the one given."""
        with self.open(path) as file:
            content = file.read()
        found = hashlib.sha256(content).hexdigest()
        if sha256 is not None and found != sha256:
            raise Corrupt(
                f"{self.uri}/{path} has sha256 {found[:16]}, its record says {sha256[:16]}: "
                "the stored bytes changed; remove the file and its unit's commit record, then run again"
            )
        return content

    def put(self, path: str, content: bytes) -> None:
        """Creates or replaces: for the small files beside the data that tell of the run as it is now."""
        for _ in range(5):
            expected = self.version(path)
            try:
                if expected is None:
                    self.create(path, content)
                else:
                    self.replace(path, content, expected=expected)
                return
            except (Conflict, NotFound):
                continue  # somebody else wrote it between the look and the write: look again
        raise Conflict(f"{self.uri}/{path} is being rewritten by another run: stop one of them")

    def each(self, work: Callable[[Given], Got], items: Iterable[Given]) -> Iterator[Got]:
        """`work` on every item, results in order; `parallel` at once, and no more items than that are taken early."""
        if self.parallel == 1:
            yield from map(work, items)
            return
        with ThreadPoolExecutor(self.parallel) as pool:
            waiting = deque()
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= self.parallel:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def content_size(content: Content) -> int:
    """Bytes of what is to be written."""
    return len(content) if isinstance(content, bytes) else os.path.getsize(content)


def content_sha256(content: Content) -> str:
    """sha256 of what is to be written, as hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with open(content, "rb") as file:
        return stream_sha256(file)


def stream_sha256(file: BinaryIO) -> str:
    """sha256 of a file from where it stands to its end, as hex."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()
