"""The GCS face against a real server over HTTP: the common contract, then every fault the network can add."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from google.auth.exceptions import RefreshError
from google.cloud.storage.retry import DEFAULT_RETRY

from pipeline.errors import UsageError
from pipeline.store import (
    Conflict,
    Corrupt,
    Denied,
    NoCredentials,
    NotFound,
    Store,
    StoreError,
    Unavailable,
    open_store,
)
from pipeline.store import gcs as gcs_module
from tests.gcs.server import FaultProxy
from tests.lanes import free_port
from tests.pipeline.store.contract import StoreContract


@pytest.fixture
def faulty(faults: FaultProxy, prefix: str) -> Iterator[Store]:
    with open_store(prefix) as store:
        yield store


class TestContract(StoreContract):
    pass


def test_an_upload_in_parts_is_whole(store: Store):
    content = bytes(range(256)) * (9 << 12)
    assert store.create("large", content)
    assert not store.create("large", content)
    assert store.read("large") == content


@pytest.mark.parametrize("fault", ["503", "429", "408", "reset"])
def test_a_passing_fault_of_a_write_is_retried(faulty: Store, faults: FaultProxy, fault: str):
    rule = faults.add(fault, "POST", "/upload/")
    assert faulty.create("a", b"one")
    assert rule.hits == 1
    assert faulty.read("a") == b"one"


@pytest.mark.parametrize("fault", ["503", "429", "reset"])
def test_a_passing_fault_of_a_read_is_retried(faulty: Store, faults: FaultProxy, fault: str):
    faulty.create("a", b"one")
    look = faults.add(fault, "GET", "/o/")
    content = faults.add(fault, "GET", "alt=media")
    assert faulty.read("a") == b"one"
    assert (look.hits, content.hits) == (1, 1)


def test_a_lost_success_is_recognised_as_our_own(faulty: Store, faults: FaultProxy):
    rule = faults.add("lost", "POST", "/upload/")
    assert faulty.create("a", b"one")
    assert rule.hits == 1


def test_a_lost_success_of_a_replacement_is_recognised(faulty: Store, faults: FaultProxy):
    faulty.create("m", b"one")
    rule = faults.add("lost", "POST", "/upload/")
    faulty.replace("m", b"two", expected=faulty.version("m"))
    assert rule.hits == 1
    assert faulty.read("m") == b"two"


def test_bits_flipped_on_the_way_are_read_again(faulty: Store, faults: FaultProxy):
    faulty.create("a", b"one")
    rule = faults.add("flipped", "GET", "alt=media")
    assert faulty.read("a") == b"one"
    assert rule.hits == 1


def test_bits_that_stay_flipped_are_an_error(faulty: Store, faults: FaultProxy):
    faulty.create("a", b"one")
    rule = faults.add("flipped", "GET", "alt=media", times=2)
    with pytest.raises(Corrupt, match="a arrived with another crc32c than stored, twice: check the network, run again"):
        faulty.read("a")
    assert rule.hits == 2


@pytest.mark.parametrize("operation", ["create", "size", "read", "list"])
def test_403_stops_at_once(faulty: Store, faults: FaultProxy, operation: str):
    faulty.create("a", b"one")
    rule = faults.add("403", "POST" if operation == "create" else "GET", "/o", times=100)
    calls = {"create": lambda: faulty.create("b", b"x"), "size": lambda: faulty.size("a")}
    calls |= {"read": lambda: faulty.read("a"), "list": lambda: list(faulty.list())}
    with pytest.raises(Denied, match=r"access denied \(403\): grant this account 'Storage Object User' on the bucket"):
        calls[operation]()
    assert rule.hits == 1


def test_403_for_the_content_alone_stops_at_once(faulty: Store, faults: FaultProxy):
    faulty.create("a", b"one")
    rule = faults.add("403", "GET", "alt=media", times=100)
    with pytest.raises(Denied, match="access denied"):
        faulty.read("a")
    assert rule.hits == 1


def test_a_request_the_server_does_not_accept_stops_at_once(faulty: Store, faults: FaultProxy):
    rule = faults.add("400", "POST", "/upload/", times=100)
    with pytest.raises(StoreError, match="a: the server answered 400 Bad Request: nothing was written"):
        faulty.create("a", b"one")
    assert rule.hits == 1


def test_a_bucket_that_is_not_there(gcs: str):
    with (
        open_store("gs://no-such-bucket/x") as store,
        pytest.raises(NotFound, match=r"gs://no-such-bucket/x/a is not there: does the bucket exist\?"),
    ):
        store.create("a", b"one")


def test_no_bucket(gcs: str):
    with pytest.raises(UsageError, match="output 'gs://' names no bucket: use gs://bucket/prefix"):
        open_store("gs://")


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["create", "read"])
def test_a_dead_server_is_given_up_within_a_minute(monkeypatch, prefix: str, operation: str):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    with open_store(prefix) as store:
        started = time.monotonic()
        with pytest.raises(
            Unavailable, match=r"a: the server did not answer \(\w+\) until the retries ended: run again"
        ):
            store.create("a", b"one") if operation == "create" else store.read("a")
        assert 10 < time.monotonic() - started < 90


@pytest.mark.slow
@pytest.mark.parametrize(("method", "part"), [("POST", "/upload/"), ("GET", "alt=media")])
def test_an_answer_that_never_comes_is_timed_out_and_asked_for_again(
    faulty: Store, faults: FaultProxy, method: str, part: str
):
    rule = faults.add("stalled", method, part)
    faulty.create("a", b"one")
    assert faulty.read("a") == b"one"
    assert rule.hits == 1


def test_a_write_that_hangs_is_timed_out_and_sent_again(faulty: Store, faults: FaultProxy, monkeypatch):
    monkeypatch.setitem(gcs_module._PATIENCE, "timeout", (1, 1))
    rule = faults.add("stalled", "POST", "/upload/")
    assert faulty.create("a", b"one")
    assert rule.hits == 1
    assert faulty.read("a") == b"one"


def test_a_write_that_is_never_answered_is_given_up(faulty: Store, faults: FaultProxy, monkeypatch):
    monkeypatch.setitem(gcs_module._PATIENCE, "retry", DEFAULT_RETRY.with_timeout(1))
    rule = faults.add("503", "POST", "/upload/", times=100)
    with pytest.raises(Unavailable, match=r"a: the server answered 503 until the retries ended: run again; it resumes"):
        faulty.create("a", b"one")
    assert rule.hits >= 1


def test_credentials_that_expired_say_so(store: Store, monkeypatch):
    def refused(*_, **__):
        raise RefreshError("invalid_grant")

    monkeypatch.setattr(store._bucket, "get_blob", refused)
    with pytest.raises(
        NoCredentials, match="a: the credentials were refused: run `gcloud auth application-default login`"
    ):
        store.size("a")


def test_without_credentials_one_line_at_once(tmp_path):
    script = (
        "import sys\n"
        "from pipeline.store import NoCredentials, open_store\n"
        "try:\n    open_store('gs://bucket/x')\nexcept NoCredentials as error:\n    print(error)"
    )
    # Nothing listens at the metadata server's address, as on any machine outside Google's cloud.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GCE_METADATA_HOST": f"127.0.0.1:{free_port()}"}
    environment |= {"GCE_METADATA_IP": environment["GCE_METADATA_HOST"], "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "gs:// needs a Google login: run `gcloud auth application-default login`\n"
    assert issubclass(NoCredentials, StoreError)


def test_without_the_clients_one_line_with_the_command():
    script = (
        "import sys\nsys.modules['google.cloud.storage'] = None\n"
        "from pipeline.errors import UsageError\nfrom pipeline.store import open_store\n"
        "try:\n    open_store('gs://bucket/x')\nexcept UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "gs:// needs packages that are not installed" in done.stdout
    assert done.stdout.endswith("pip install 'bark-beam[gcp]'\n")


def _race(uri: str, n: int) -> str:
    with open_store(uri) as store:
        try:
            store.create("raced", b"%d" % n)
        except Conflict:
            return "refused"
        return "created"


def test_of_two_processes_one_creates(gcs: str, prefix: str):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        outcomes = pool.starmap(_race, [(prefix, n) for n in range(6)])
        pool.close()
        pool.join()
    assert sorted(outcomes) == ["created"] + ["refused"] * 5
