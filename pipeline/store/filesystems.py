"""Reading and listing through fsspec: local paths, gs:// and whatever else fsspec and its plugins know.

Nothing is ever written through these: a store's create-only write is in `gcs.py`, gcsfs's own is not safe.
"""

import os

import fsspec
from fsspec.implementations.local import LocalFileSystem

from bark_model.object_store import LOGIN, check_login, cloud_storage
from pipeline.errors import UsageError, excerpt
from pipeline.store.errors import NoCredentials

_BLOCK_BYTES = 8 << 20


def is_local(uri: str) -> bool:
    """Whether the URI is a path of this machine."""
    return "://" not in uri or uri.startswith("file://")


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of a URI and the path (or glob) inside it.

    Listings are never cached. UsageError for a scheme nobody here serves; NoCredentials, in a second, for gs://
    without a login.
    """
    if is_local(uri):
        return LocalFileSystem(), os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))
    scheme, _, rest = uri.partition("://")
    if scheme in ("gs", "gcs"):
        return _gcs(), rest
    try:
        found, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    except Exception as error:  # every file system raises its own
        raise UsageError(f"{excerpt(uri)} cannot be opened: {error}") from error
    return found, path


def _gcs() -> fsspec.AbstractFileSystem:
    try:
        if not os.environ.get("STORAGE_EMULATOR_HOST"):
            check_credentials()
        return cloud_storage(block_size=_BLOCK_BYTES)
    except ImportError as error:
        raise UsageError("gs:// needs gcsfs: pip install 'bark-beam[gcp]'") from error


def check_credentials() -> None:
    """NoCredentials, in a second, when google.auth finds no login."""
    from google.auth.exceptions import DefaultCredentialsError

    try:
        check_login()
    except DefaultCredentialsError as error:
        raise NoCredentials(f"gs:// needs a Google login: {LOGIN}") from error
