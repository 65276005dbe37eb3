"""The local face: the common contract, and what only a disk can do wrong."""

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.store import BadPath, Conflict, Denied, LocalStore, NoSpace, StoreError, Unavailable, open_store
from tests.pipeline.store.contract import StoreContract


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder)


class TestContract(StoreContract):
    pass


def test_a_folder_and_a_file_uri_open_the_same_store(folder: Path):
    open_store(str(folder)).create("a", b"one")
    assert open_store(f"file://{folder}").read("a") == b"one"


def test_another_scheme_is_refused():
    with pytest.raises(
        UsageError, match="output 's3://x/y' has the scheme 's3': use a local folder or gs://bucket/prefix"
    ):
        open_store("s3://x/y")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_so_and_leaves_nothing(store: LocalStore, folder: Path, monkeypatch, code: int):
    def full(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match="a does not fit on the disk: free some space and run again; it resumes"):
        store.create("a", b"one")
    assert list(folder.iterdir()) == []


def test_a_write_cut_short_by_the_system_leaves_nothing_and_keeps_the_work(store: LocalStore):
    store.create("kept", b"one")
    script = (
        "import resource, signal\n"
        "from pipeline.store import LocalStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"LocalStore({store.uri!r}).create('big', b'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "big does not fit on the disk: free some space and run again; it resumes" in done.stderr
    assert [entry.path for entry in store.list()] == ["kept"]
    assert store.sweep() == 0


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_read_only_output_says_so(store: LocalStore, monkeypatch, code: int):
    def refused(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(Denied, match=r"a is not permitted \(.+\): choose an output you may write to"):
        store.create("a", b"one")


def test_a_broken_disk_says_so(store: LocalStore, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(Unavailable, match="a: Input/output error: check the disk and run again; it resumes"):
        store.create("a", b"one")


def test_an_output_that_is_a_file_says_so(tmp_path: Path):
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(StoreError, match="a: File exists: choose another output"):
        LocalStore(tmp_path / "out").create("a", b"one")


def test_links_out_of_the_output_are_not_followed(store: LocalStore, folder: Path, tmp_path: Path):
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    (folder / "audio").symlink_to(tmp_path / "outside")
    (folder / "file").symlink_to(tmp_path / "outside" / "file")
    for path in ("audio/a", "audio/new/a", "file"):
        with pytest.raises(BadPath, match=f"path '{path}' leads out of .* through a symbolic link: remove the link"):
            store.create(path, b"one")
    assert list((tmp_path / "outside").iterdir()) == []


def test_without_hard_links_a_file_is_still_never_overwritten(store: LocalStore, folder: Path, monkeypatch):
    def impossible(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", impossible)
    assert store.create("a", b"one")
    assert not store.create("a", b"one")
    monkeypatch.setattr(Path, "exists", lambda _: False)  # as a writer sees it that looked before the other's rename
    with pytest.raises(Unavailable, match="a could not be linked in 3 attempts"):
        store.create("a", b"two")
    assert (folder / "a").read_bytes() == b"one"
    assert [entry.name for entry in folder.iterdir()] == ["a"]


def test_a_temporary_file_swept_by_another_run_is_written_again(store: LocalStore, folder: Path, monkeypatch):
    link, swept = os.link, []

    def sweep_first(source, target):
        if not swept:
            swept.append(LocalStore(folder).sweep())
        link(source, target)

    monkeypatch.setattr(os, "link", sweep_first)
    assert store.create("a", b"one")
    assert swept == [1]
    assert store.read("a") == b"one"


def test_what_a_killed_writer_leaves_is_not_listed_and_is_swept(store: LocalStore, folder: Path):
    kill = "import os, signal; os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    write = f"from pipeline.store import LocalStore\nLocalStore({str(folder)!r}).create('a/b', b'one')"
    assert subprocess.run([sys.executable, "-c", kill + write]).returncode == -9
    assert len(list((folder / "a").iterdir())) == 1
    assert list(store.list()) == []
    assert store.sweep() == 1
    assert list((folder / "a").iterdir()) == []
    assert store.create("a/b", b"one")


def _race(folder: str, n: int) -> str:
    try:
        LocalStore(folder).create("raced", b"%d" % n)
    except Conflict:
        return "refused"
    return "created"


def test_of_two_processes_one_creates(store: LocalStore, folder: Path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        outcomes = pool.starmap(_race, [(str(folder), n) for n in range(6)])
        pool.close()
        pool.join()
    assert sorted(outcomes) == ["created"] + ["refused"] * 5


@settings(max_examples=200, deadline=None)
@given(path=st.text(min_size=1, max_size=30))
def test_no_path_writes_outside(tmp_path_factory, path: str):
    root = tmp_path_factory.mktemp("root")
    try:
        LocalStore(root / "inside").create(path, b"x")
    except BadPath:
        assert list(root.iterdir()) == []
    else:
        assert LocalStore(root / "inside").read(path) == b"x"
    assert {entry.name for entry in root.iterdir()} <= {"inside"}
