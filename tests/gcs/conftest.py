"""A GCS server for the tests of this folder, alone and behind a proxy that injects faults."""

import uuid
from collections.abc import Iterator

import pytest

from pipeline.store import Store, open_store
from tests.gcs.server import BUCKET, FaultProxy, fault_proxy, running_server


@pytest.fixture(scope="session")
def gcs_url() -> Iterator[str]:
    with running_server() as url:
        yield url


@pytest.fixture
def gcs(gcs_url: str, monkeypatch) -> str:
    """The server is the one that clients of this test find; its URL."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    return gcs_url


@pytest.fixture
def faults(gcs_url: str, monkeypatch) -> Iterator[FaultProxy]:
    """A proxy to the server that clients of this test take for it."""
    with fault_proxy(gcs_url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


@pytest.fixture
def prefix() -> str:
    """A place of its own in the server's bucket."""
    return f"gs://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def store(gcs: str, prefix: str) -> Iterator[Store]:
    with open_store(prefix) as store:
        yield store
