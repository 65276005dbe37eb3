import sys

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError

from bark_model.object_store import check_login
from pipeline.errors import UsageError
from pipeline.store.errors import NoCredentials
from pipeline.store.filesystems import filesystem


@pytest.fixture(autouse=True)
def fresh_login():
    check_login.cache_clear()
    yield
    check_login.cache_clear()


def test_local_paths_in_both_spellings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert filesystem("a/../b.txt")[1] == filesystem(f"file://{tmp_path}/b.txt")[1] == f"{tmp_path}/b.txt"


@pytest.mark.parametrize("uri", ["zip://x", "nothing://x", "tar://x"])
def test_what_no_file_system_serves_is_one_line(uri):
    with pytest.raises(UsageError, match=f"^'{uri}' cannot be opened: "):
        filesystem(uri)


def test_no_login_is_said_at_once_and_in_one_line(monkeypatch):
    def refuse():
        raise DefaultCredentialsError("a long\nstory")

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(google.auth, "default", refuse)
    with pytest.raises(
        NoCredentials, match=r"^gs:// needs a Google login: run `gcloud auth application-default login`$"
    ):
        filesystem("gs://bucket/x")


def test_without_the_gcp_extra_its_name_is_given(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "gcsfs.core", None)
    with pytest.raises(UsageError, match=r"^gs:// needs gcsfs: pip install 'bark-beam\[gcp\]'$"):
        filesystem("gs://bucket/x")


def test_an_emulator_needs_no_login_and_listings_are_not_cached(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    found, path = filesystem("gs://bucket/x*")
    assert path == "bucket/x*"
    assert not found.dircache.use_listings_cache
    assert found.requests_timeout.sock_connect == 5
