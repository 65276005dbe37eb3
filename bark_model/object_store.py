"""Reading files below a URL such as gs://bucket/folder. fsspec and the Cloud Storage client load only here.

Cloud Storage is read with the time-outs that were measured against a dead, a silent and a refusing server: gcsfs by
itself waits 16 s where nobody is logged in, minutes for a dead server, and accepts flipped bits.
"""

import base64
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from bark_model.checkpoint import CheckpointError

_CONNECT_S, _READ_S = 5, 20  # of a socket
_CALL_S = 60  # of a request with its retries
_BLOCK_BYTES = 16 << 20
LOGIN = "run `gcloud auth application-default login`"


class ObjectStore:
    """The files below `url`, listed once. Every error is a CheckpointError: one line with the remedy."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self._is_gcs = url.startswith(("gs://", "gcs://"))
        with _one_line_errors(f"checkpoint {url!r}"):
            self._filesystem, root = (cloud_storage(), url.partition("://")[2]) if self._is_gcs else _other(url)
            listed = self._filesystem.find(root, detail=True, **self._patience)
        self._root = root.rstrip("/") + "/"
        self.files: dict[str, dict[str, Any]] = {
            path.removeprefix(self._root): info for path, info in listed.items() if path.startswith(self._root)
        }
        """What the listing says of each file, by its path below the URL."""

    @property
    def _patience(self) -> dict[str, Any]:
        return {"timeout": _CALL_S} if self._is_gcs else {}

    def copy(self, name: str, target: Path) -> None:
        """Copies one file. The target's name appears with the whole content, its checksum compared, or not at all."""
        partial = target.with_name(f".{target.name}.{uuid4().hex}.partial")
        with _one_line_errors(f"{self.url}/{name}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._copy(name, partial)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)

    def _copy(self, name: str, target: Path) -> None:
        shown, listed = f"{self.url}/{name}", self.files[name]
        for _ in range(2):  # bits that flipped on their way are read again
            size, crc32c = self._read(name, target)
            if listed.get("size") not in (None, size):
                raise CheckpointError(f"{shown} came with {size} bytes, its listing says {listed['size']}: try again")
            if crc32c in (None, listed.get("crc32c")):
                return
        raise CheckpointError(
            f"{shown} arrived with another crc32c than listed, twice: check the network and try again"
        )

    def _read(self, name: str, target: Path) -> tuple[int, str | None]:
        """Writes a file's content; its size in bytes and, on Cloud Storage, its crc32c in base64."""
        if not self._is_gcs:
            with self._filesystem.open(self._root + name, "rb") as source, open(target, "wb") as stream:
                shutil.copyfileobj(source, stream, _BLOCK_BYTES)
            return target.stat().st_size, None
        import google_crc32c

        checksum, size = google_crc32c.Checksum(), self.files[name]["size"]
        with open(target, "wb") as stream:
            # Each block is a request with a time-out of its own, which gcsfs's streams have not.
            for start in range(0, size, _BLOCK_BYTES):
                end = min(start + _BLOCK_BYTES, size)
                block = self._filesystem.cat_file(self._root + name, start=start, end=end, **self._patience)
                checksum.update(block)
                stream.write(block)
        return target.stat().st_size, base64.b64encode(checksum.digest()).decode()


def _other(url: str) -> tuple[Any, str]:
    import fsspec

    return fsspec.core.url_to_fs(url, use_listings_cache=False)


def cloud_storage(**options: Any) -> Any:
    """gcsfs with the time-outs of this module and no cache of listings. ImportError without gcsfs; see check_login."""
    # Read at gcsfs's import: the class that it then gives to others stalls every call by 45 to 60 s to ask for zones.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    try:
        import aiohttp
        from gcsfs.core import GCSFileSystem
    except ImportError as error:
        raise ImportError("gs:// needs gcsfs: pip install 'bark-beam[gcp]'") from error
    # gcsfs logs a traceback of 40 lines beside the exception that it raises anyway.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if not emulator:
        check_login()
    return GCSFileSystem(
        token="anon" if emulator else "google_default",
        endpoint_url=emulator or None,
        use_listings_cache=False,
        requests_timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=_READ_S),
        **options,
    )


@cache
def check_login() -> None:
    """DefaultCredentialsError when google.auth finds no login: gcsfs itself would wait 16 s and go on as nobody."""
    import google.auth

    google.auth.default()


@contextmanager
def _one_line_errors(shown: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # every filesystem raises its own
        raise CheckpointError(f"{shown} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What went wrong and what to do about it."""
    kind, status = type(error).__name__, getattr(error, "code", None)
    if kind == "DefaultCredentialsError":
        return f"gs:// needs a Google login: {LOGIN}"
    if kind == "RefreshError":
        return f"the credentials were refused: {LOGIN}"
    if status in (401, 403) or str(error).startswith("Forbidden"):  # the latter is how gcsfs tells of 403
        return f"access denied ({status or 403}): grant this account 'Storage Object Viewer' on the bucket"
    if isinstance(error, FileNotFoundError):
        return "it is not there: check the bucket and the path"
    if isinstance(error, TimeoutError) or kind.startswith(("Client", "Server")):  # of aiohttp
        return f"the server did not answer ({kind}): check the network and try again"
    if status is not None:
        return f"the server answered {status}: try again"
    return " ".join(str(error).split())[:200] or kind
