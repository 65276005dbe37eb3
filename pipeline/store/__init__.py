"""Where outputs live. `open_store(uri)` gives a local folder or a Google Cloud Storage prefix one interface."""

from pipeline.errors import UsageError
from pipeline.store.base import Content, Entry, Store
from pipeline.store.errors import (
    BadPath,
    Conflict,
    Corrupt,
    Denied,
    NoCredentials,
    NoSpace,
    NotFound,
    StoreError,
    Unavailable,
)
from pipeline.store.local import LocalStore

__all__ = [
    "BadPath",
    "Conflict",
    "Content",
    "Corrupt",
    "Denied",
    "Entry",
    "LocalStore",
    "NoCredentials",
    "NoSpace",
    "NotFound",
    "Store",
    "StoreError",
    "Unavailable",
    "open_store",
]


def open_store(uri: str) -> Store:
    """The store at a local folder, `file://` or `gs://bucket/prefix`.

    Credentials are looked up here, once and first: NoCredentials comes in a second. UsageError for another scheme.
    """
    if uri.startswith("gs://"):
        from pipeline.store.gcs import GcsStore

        return GcsStore(uri)
    scheme, found, rest = uri.partition("://")
    if not found:
        return LocalStore(uri)
    if scheme == "file":
        return LocalStore(rest)
    raise UsageError(f"output {uri!r} has the scheme {scheme!r}: use a local folder or gs://bucket/prefix")
