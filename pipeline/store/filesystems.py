"""Reading and listing through fsspec: local paths, gs:// and whatever else fsspec and its plugins know.

Nothing is ever written through these: a store's create-only write is in `gcs.py`, gcsfs's own is not safe.
"""

import functools
import logging
import os

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UsageError, excerpt
from pipeline.store.errors import NoCredentials

_BLOCK_BYTES = 8 << 20
_CONNECT_S, _READ_S = 5, 20  # a socket's time-outs; without them a dead server holds a call for over 5 minutes


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
    # Read at gcsfs's import: its zonal-bucket probe stalls every call by 45 to 60 s.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    try:
        import aiohttp
        import gcsfs
    except ImportError as error:
        raise UsageError("gs:// needs gcsfs: pip install 'bark-beam[gcp]'") from error
    # gcsfs logs a traceback of 40 lines beside the exception that it raises anyway.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if not emulator:
        check_credentials()
    return gcsfs.GCSFileSystem(
        token="anon" if emulator else "google_default",
        endpoint_url=emulator or None,
        use_listings_cache=False,
        block_size=_BLOCK_BYTES,
        requests_timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=_READ_S),
    )


@functools.cache
def check_credentials() -> None:
    """NoCredentials when google.auth finds no login (gcsfs itself would wait 16 s and go on as nobody)."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        raise NoCredentials("gs:// needs a Google login: run `gcloud auth application-default login`") from error
