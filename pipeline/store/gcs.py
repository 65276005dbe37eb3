"""A store on Google Cloud Storage: reads through gcsfs with checksums compared, writes with generation preconditions.

A lost answer makes the client send an upload twice, and the second gets 412 from the first one's success. So each
upload carries an attempt id in the object's metadata: 412 with our own id, or with equal content, is success.
Time-outs and retries are those measured against a dead and a faulty server: about 40 s and the last back-off.
"""

import base64
import contextlib
import os
import secrets
import tempfile
import weakref
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.errors import UsageError
from pipeline.store.base import Content, Entry, Store, check_path, content_sha256
from pipeline.store.errors import Conflict, Corrupt, Denied, NoCredentials, NotFound, StoreError, Unavailable
from pipeline.store.filesystems import check_credentials, filesystem

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # before gcsfs's import: its probe stalls calls for 45 s
try:
    import aiohttp
    import gcsfs.retry
    import google.auth
    import google.auth.credentials
    import google.auth.exceptions
    import google_crc32c
    import requests
    from google.api_core import exceptions as api_exceptions
    from google.cloud import storage
    from google.cloud.storage import exceptions as storage_exceptions
    from google.cloud.storage.retry import DEFAULT_RETRY
except ImportError as error:
    raise UsageError(f"gs:// needs packages that are not installed ({error}): pip install 'bark-beam[gcp]'") from error

_CONNECT_S, _ANSWER_S, _RETRIES_S = 5, 20, 40
_PATIENCE: dict[str, Any] = {"timeout": (_CONNECT_S, _ANSWER_S), "retry": DEFAULT_RETRY.with_timeout(_RETRIES_S)}
_READ_TIMEOUT_S = 60
_BLOCK_BYTES = 8 << 20
_HELD_IN_MEMORY_BYTES = 64 << 20
_TRANSIENT = {408, 429, 500, 502, 503, 504}

# What the clients raise; OSError covers gcsfs's "Forbidden", connection errors and time-outs.
_CLIENT_ERRORS = (
    OSError,
    aiohttp.ClientError,
    api_exceptions.GoogleAPIError,
    gcsfs.retry.HttpError,
    google.auth.exceptions.GoogleAuthError,
    requests.RequestException,
    storage_exceptions.InvalidResponse,
    storage_exceptions.DataCorruption,
)


class GcsStore(Store):
    """Objects under `gs://bucket/prefix`. The bucket has to exist."""

    parallel = 8

    def __init__(self, uri: str):
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        if not bucket:
            raise UsageError(f"output {uri!r} names no bucket: use gs://bucket/prefix")
        self._prefix = "".join(f"{part}/" for part in check_path(prefix.strip("/"))) if prefix.strip("/") else ""
        self.uri = f"gs://{bucket}/{self._prefix}".rstrip("/")
        self._client = _client()
        weakref.finalize(self, self._client.close)  # its sockets go with a store that nobody closed
        self._bucket = self._client.bucket(bucket)
        self._files, _ = filesystem(self.uri)

    def close(self) -> None:
        self._client.close()

    def size(self, path: str) -> int | None:
        found = self._look(path)
        return None if found is None else found.size

    def version(self, path: str) -> str | None:
        found = self._look(path)
        return None if found is None else str(found.generation)

    def open(self, path: str) -> BinaryIO:
        for _ in range(2):  # an object replaced between the look and the read gives a second try, as flipped bits do
            found = self._look(path)
            if found is None:
                raise NotFound(f"{self.uri}/{path} is not there: was the output moved or its run not finished?")
            file, crc32c = self._fetch(path, found.size or 0)
            if crc32c == found.crc32c:
                return file
            file.close()
        raise Corrupt(f"{self.uri}/{path} arrived with another crc32c than stored, twice: check the network, run again")

    def create(self, path: str, content: Content) -> bool:
        blob, sent = self._blob(path), _new_metadata(content)
        with _one_line_errors(self.uri, path), contextlib.suppress(api_exceptions.PreconditionFailed):
            self._upload(blob, content, sent, generation=0)
            return True
        there = self._look(path)
        if there is not None and (there.metadata or {}).get("attempt") == sent["attempt"]:
            return True
        if there is not None and _is_same(there, sent):
            return False
        raise Conflict(f"{self.uri}/{path} already holds other content: it is kept; choose another output")

    def replace(self, path: str, content: bytes, *, expected: str) -> None:
        blob, sent = self._blob(path), _new_metadata(content)
        with _one_line_errors(self.uri, path), contextlib.suppress(api_exceptions.PreconditionFailed):
            self._upload(blob, content, sent, generation=int(expected))
            return
        there = self._look(path)
        if there is None or not _is_same(there, sent):
            raise Conflict(f"{self.uri}/{path} was replaced by another run meanwhile: stop one of them, run again")

    def list(self, prefix: str = "") -> Iterator[Entry]:
        if prefix:
            check_path(prefix.rstrip("/"))
        with _one_line_errors(self.uri, prefix):
            for blob in self._client.list_blobs(
                self._bucket,
                prefix=self._prefix + prefix,
                fields="items(name,size),nextPageToken",
                **_PATIENCE,
            ):
                yield Entry(blob.name.removeprefix(self._prefix), blob.size)

    def _blob(self, path: str) -> storage.Blob:
        return self._bucket.blob(self._prefix + "/".join(check_path(path)))

    def _look(self, path: str) -> storage.Blob | None:
        name = self._prefix + "/".join(check_path(path))
        with _one_line_errors(self.uri, path):
            return self._bucket.get_blob(name, **_PATIENCE)

    def _upload(self, blob: storage.Blob, content: Content, sent: dict[str, str], *, generation: int) -> None:
        blob.metadata = sent
        settings = {"if_generation_match": generation, "checksum": "crc32c"} | _PATIENCE
        if isinstance(content, Path):
            blob.upload_from_filename(str(content), content_type="application/octet-stream", **settings)
        else:
            blob.upload_from_string(content, content_type="application/octet-stream", **settings)

    def _fetch(self, path: str, size: int) -> tuple[BinaryIO, str]:
        """The object's bytes, in memory or in a temporary file when they are many, and their crc32c in base64."""
        checksum = google_crc32c.Checksum()
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_HELD_IN_MEMORY_BYTES))  # noqa: SIM115, the caller closes it
        key = f"{self._bucket.name}/{self._prefix}{path}"
        try:
            for start in range(0, size, _BLOCK_BYTES):
                end = min(start + _BLOCK_BYTES, size)
                with _one_line_errors(self.uri, path):
                    block = self._files.cat_file(key, start=start, end=end, timeout=_READ_TIMEOUT_S)
                checksum.update(cast(bytes, block))
                file.write(cast(bytes, block))
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file, base64.b64encode(checksum.digest()).decode()


def _new_metadata(content: Content) -> dict[str, str]:
    """What marks an upload as this attempt's own, and its content beyond the 32 bits of crc32c."""
    crc32c = google_crc32c.Checksum()
    if isinstance(content, bytes):
        crc32c.update(content)
    else:
        with open(content, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                crc32c.update(block)
    return {
        "attempt": secrets.token_hex(16),
        "sha256": content_sha256(content),
        "crc32c": base64.b64encode(crc32c.digest()).decode(),
    }


def _is_same(there: storage.Blob, sent: dict[str, str]) -> bool:
    """Whether an object holds what was sent; one copied here without its metadata is told by its crc32c."""
    sha256 = (there.metadata or {}).get("sha256")
    return there.crc32c == sent["crc32c"] and sha256 in (None, sent["sha256"])


def _client() -> storage.Client:
    """A client with credentials that exist, or anonymous for an emulator."""
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client(project="emulator", credentials=google.auth.credentials.AnonymousCredentials())
    check_credentials()
    credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])
    return storage.Client(project=project or "unused", credentials=credentials)


@contextlib.contextmanager
def _one_line_errors(uri: str, path: str) -> Iterator[None]:
    try:
        yield
    except api_exceptions.PreconditionFailed:
        raise
    except _CLIENT_ERRORS as error:
        raise _store_error(f"{uri}/{path}", error) from error


def _store_error(where: str, error: Exception) -> StoreError:
    if isinstance(error, api_exceptions.RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    status = _status(error)
    if isinstance(error, google.auth.exceptions.RefreshError):
        return NoCredentials(f"{where}: the credentials were refused: run `gcloud auth application-default login`")
    if status in (401, 403):
        return Denied(f"{where}: access denied ({status}): grant this account 'Storage Object User' on the bucket")
    if status == 404:
        return NotFound(f"{where} is not there: does the bucket exist?")
    if status is None or status in _TRANSIENT:
        reason = f"answered {status}" if status else f"did not answer ({type(error).__name__})"
        return Unavailable(f"{where}: the server {reason} until the retries ended: run again; it resumes")
    return StoreError(f"{where}: the server answered {status} {HTTPStatus(status).phrase}: nothing was written")


def _status(error: Exception) -> int | None:
    """The HTTP status behind a client's error; None when the server gave none."""
    if isinstance(error, FileNotFoundError):
        return 404
    if isinstance(error, OSError) and str(error).startswith("Forbidden"):  # how gcsfs tells of 403
        return 403
    if isinstance(error, storage_exceptions.InvalidResponse):
        return error.response.status_code
    code = getattr(error, "code", None)
    return int(code) if code is not None else None
