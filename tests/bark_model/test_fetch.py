"""Checkpoints from elsewhere: the hub's cache without a network, and object stores."""

import io
import os
import shutil
import subprocess
import sys
import textwrap

import fsspec
import pytest

from bark_model import Checkpoint, CheckpointError
from bark_model.convert import convert
from bark_model.fetch import cache_folder, cached_hub, cached_url
from tests.bark_model.test_checkpoint import fault

COMMAND = "run `bark-beam weights convert suno/bark FOLDER` with a network once, then use the folder"


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Empty caches of our own."""
    monkeypatch.setenv("BARK_BEAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def in_hub_cache(caches, **files: bytes):
    """A snapshot of suno/bark as the hub's client keeps it."""
    commit = "0" * 40
    snapshot = caches / "hub/models--suno--bark/snapshots" / commit
    snapshot.mkdir(parents=True)
    (caches / "hub/models--suno--bark/refs").mkdir()
    (caches / "hub/models--suno--bark/refs/main").write_text(commit)
    for name, content in files.items():
        (snapshot / name.replace("__", ".")).write_bytes(content)
    return snapshot


def test_hub_name_that_is_not_cached():
    assert fault(CheckpointError, Checkpoint.open, "suno/bark") == (
        f"checkpoint 'suno/bark' is not in the local cache: {COMMAND}"
    )


def test_hub_name_of_which_other_tools_left_the_config_only(caches):
    in_hub_cache(caches, config__json=b"{}")
    assert fault(CheckpointError, Checkpoint.open, "suno/bark") == (
        f"checkpoint 'suno/bark' is not in the local cache: {COMMAND}"
    )


def test_hub_name_that_is_cached(caches, folders):
    snapshot = in_hub_cache(caches)
    shutil.copytree(folders["tiny"].folder, snapshot, dirs_exist_ok=True)
    opened = Checkpoint.open("suno/bark")
    assert opened.folder == snapshot
    assert opened.sha256 == folders["tiny"].sha256


def test_offline_in_a_process_of_its_own(tmp_path):
    """With HF_HUB_OFFLINE=1, one line each, and the network is not asked."""
    program = """
    from bark_model import Checkpoint, CheckpointError
    from bark_model.convert import convert
    for call in (lambda: Checkpoint.open("suno/bark"), lambda: convert("suno/bark", "never")):
        try:
            call()
        except CheckpointError as error:
            print(error)
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first == f"checkpoint 'suno/bark' is not in the local cache: {COMMAND}"
    assert second.startswith("'suno/bark' cannot be fetched from the hub: ")


def test_bad_hub_names():
    for name in ("a b/c", "a/--", "o/" + "x" * 200):
        assert "is not in the local cache: run" in fault(CheckpointError, cached_hub, name)


def test_revision_reaches_the_hub(monkeypatch, folders, tmp_path):
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(folders["tiny"].folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    new = convert("suno/bark", tmp_path / "new", revision="abc")
    assert new.sha256 == folders["tiny"].sha256
    assert (asked["name"], asked["revision"], asked["local_files_only"]) == ("suno/bark", "abc", False)
    assert {"model.safetensors", "pytorch_model.bin"}.isdisjoint(asked["allow_patterns"])  # patterns, not names
    assert {"*.safetensors", "pytorch_model*.bin", "SHA256SUMS"} < set(asked["allow_patterns"])


def upload(folder, url: str) -> None:
    filesystem = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            filesystem.pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())


@pytest.fixture
def url(folders):
    """The tiny checkpoint in an object store, beside files that are none of it."""
    filesystem, root = fsspec.filesystem("memory"), "memory://bucket/model"
    upload(folders["tiny"].folder, root)
    filesystem.pipe_file(f"{root}/README.md", b"no")
    filesystem.pipe_file(f"{root}/pytorch_model.bin", b"the same weights again")
    yield root
    filesystem.rm("/bucket", recursive=True)


def test_url_is_fetched_once(url, folders, monkeypatch):
    first = Checkpoint.open(url)
    assert first.sha256 == folders["tiny"].sha256
    assert first.folder.is_relative_to(cache_folder())
    assert {path.name for path in first.folder.iterdir()} == {path.name for path in folders["tiny"].folder.iterdir()}
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "open", None)
    assert Checkpoint.open(url).folder == first.folder


def test_changed_url_is_another_folder(url, folders):
    first = cached_url(url)
    upload(folders["rates"].folder, url)
    assert cached_url(url) != first
    assert Checkpoint.open(url).sha256 == folders["rates"].sha256


def test_url_that_is_cut_short(url, monkeypatch):
    memory = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(memory, "open", lambda self, path, *_: io.BytesIO(self.store[path].getvalue()[:10]))
    message = fault(CheckpointError, cached_url, url)
    assert message.startswith(f"{url}/SHA256SUMS came with 10 bytes, its listing says ")
    assert not [path for path in cache_folder().rglob("*") if path.is_file()]


def test_url_that_fails_in_the_middle_of_a_file(url, monkeypatch):
    class Half(io.BytesIO):
        def read(self, *_):
            if self.tell():
                raise PermissionError("no more\nfor you")
            return super().read(10)

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "open", lambda *_: Half(b"x" * 100))
    assert fault(CheckpointError, cached_url, url) == f"{url}/SHA256SUMS cannot be read: no more for you"
    assert not [path for path in cache_folder().rglob("*") if path.is_file()]


def test_gcs_without_its_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs.core", None)
    assert fault(CheckpointError, cached_url, "gs://bucket/model") == (
        "checkpoint 'gs://bucket/model' cannot be read: gs:// needs gcsfs: pip install 'bark-beam[gcp]'"
    )


def test_urls_without_a_checkpoint():
    assert fault(CheckpointError, cached_url, "memory://nothing/here") == (
        "checkpoint 'memory://nothing/here' holds no file of a checkpoint: is the URL right?"
    )
    assert fault(CheckpointError, cached_url, "nonsense://x").startswith("checkpoint 'nonsense://x' cannot be read: ")
