"""A GCS server for the tests of this folder, alone and behind a proxy that injects faults."""

from collections.abc import Iterator

import pytest

from tests.gcs.server import FaultProxy, fault_proxy, running_server


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
