"""A store on a local disk: temporary file in the same folder, fsync, hard link. A link never overwrites."""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.store.base import Content, Entry, Store, check_path, content_sha256, content_size
from pipeline.store.errors import BadPath, Conflict, Denied, NoSpace, NotFound, StoreError, Unavailable

_TEMPORARY = ".bark-beam-"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV}
_ATTEMPTS = 3


class LocalStore(Store):
    """Files under one folder, made when the first file is. Links that point out of the folder are not followed."""

    def __init__(self, folder: str | os.PathLike):
        self._root = Path(os.path.realpath(folder))
        self.uri = str(self._root)

    def size(self, path: str) -> int | None:
        with _one_line_errors(self.uri, path):
            try:
                return os.stat(self._inside(path)).st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def version(self, path: str) -> str | None:
        with _one_line_errors(self.uri, path):
            return _version(self._inside(path))

    def open(self, path: str) -> BinaryIO:
        with _one_line_errors(self.uri, path):
            return open(self._inside(path), "rb")

    def create(self, path: str, content: Content) -> bool:
        target = self._inside(path)
        with _one_line_errors(self.uri, path):
            for _ in range(_ATTEMPTS):
                if target.exists():
                    return self._same_or_conflict(path, target, content)
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError, FileNotFoundError), _temporary_file(target, content) as made:
                    _link(made, target)
                    return True
                # the file appeared meanwhile, or another run swept our temporary one away: look again
        raise Unavailable(
            f"{self.uri}/{path} could not be linked in {_ATTEMPTS} attempts: is the folder being removed?"
        )

    def replace(self, path: str, content: bytes, *, expected: str) -> None:
        target = self._inside(path)
        with _one_line_errors(self.uri, path), _locked(target.parent):
            found = _version(target)
            if found == hashlib.sha256(content).hexdigest():
                return
            if found != expected:
                raise Conflict(f"{self.uri}/{path} was replaced by another run meanwhile: stop one of them, run again")
            with _temporary_file(target, content) as made:
                os.replace(made, target)
            _sync_folder(target.parent)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        start = self._inside(prefix.rpartition("/")[0]) if "/" in prefix else self._root
        with _one_line_errors(self.uri, prefix):
            for file in sorted(self._walk(start)):
                path = os.path.relpath(file, self._root).replace(os.sep, "/")
                if path.startswith(prefix) and not os.path.basename(file).startswith(_TEMPORARY):
                    yield Entry(path, os.stat(file, follow_symlinks=False).st_size)

    def sweep(self) -> int:
        removed = 0
        for file in self._walk(self._root):
            if os.path.basename(file).startswith(_TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(file)
                    removed += 1
        return removed

    @staticmethod
    def _walk(start: Path) -> Iterator[str]:
        for folder, _, names in os.walk(start):
            yield from (os.path.join(folder, name) for name in names)

    def _inside(self, path: str) -> Path:
        """The file's place on disk, once all links on the way to it are known to stay inside."""
        target = self._root.joinpath(*check_path(path))
        if not Path(os.path.realpath(target)).is_relative_to(self._root):
            raise BadPath(f"path {path!r} leads out of {self.uri} through a symbolic link: remove the link")
        return target

    def _same_or_conflict(self, path: str, target: Path, content: Content) -> bool:
        if target.stat().st_size == content_size(content) and content_sha256(target) == content_sha256(content):
            return False
        raise Conflict(f"{self.uri}/{path} already holds other content: it is kept; choose another output")


def _version(target: Path) -> str | None:
    try:
        return content_sha256(target)
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextlib.contextmanager
def _temporary_file(target: Path, content: Content) -> Iterator[str]:
    """A whole and durable copy of the content in the target's folder, removed afterwards if it is still there."""
    made = str(target.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}"))
    try:
        with open(made, "xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with open(content, "rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        yield made
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)


def _link(made: str, target: Path) -> None:
    """Gives the finished file its name, durably; FileExistsError when the name is taken."""
    try:
        os.link(made, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with _locked(target.parent):  # such as FAT or some network disks: ours alone by the lock
            if os.path.lexists(target):
                raise FileExistsError(target) from error
            os.replace(made, target)
    _sync_folder(target.parent)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's advisory lock, which goes with the process that holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _one_line_errors(uri: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"{uri}/{path}"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"{where} is not there: was the output moved or its run not finished?") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpace(f"{where} does not fit on the disk: free some space and run again; it resumes") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Denied(f"{where} is not permitted ({error.strerror}): choose an output you may write to") from error
        if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT):
            raise Unavailable(f"{where}: {error.strerror}: check the disk and run again; it resumes") from error
        raise StoreError(f"{where}: {error.strerror}: choose another output") from error
