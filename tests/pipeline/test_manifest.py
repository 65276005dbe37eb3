"""The manifest: what it lists, that it only comes when everything adds up, generations, and a kill at every step."""

import errno
import itertools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest import MANIFEST, Ids, IncompleteRun, dump_manifest, load_manifest, publish, read_shard_commit
from pipeline.store import Conflict, Corrupt, LocalStore, NoSpace, NotFound
from tests.pipeline.killing import count_operations, run_killed, tree
from tests.pipeline.small_run import FINGERPRINT, commit, failed, finished, small_run, tiny_run


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def publish_all(store: LocalStore, names: list[str], **values):
    return publish(store, **{"generation": 0, "fingerprint": FINGERPRINT, "commits": names} | values)


def test_a_finished_run(store: LocalStore):
    manifest = small_run(store)
    assert (manifest.records, manifest.done, manifest.failed, manifest.removed) == (5, 4, 1, 0)
    assert [shard.unit for shard in manifest.shards] == ["0000/000000-00000", "0000/000001-00000"]
    assert [file.kind for file in manifest.shards[0].files] == ["tokens", "failed"]
    assert [shard.audio_files for shard in manifest.shards] == [2, 2]
    assert manifest.audio_s == pytest.approx(4.25)
    assert load_manifest(store) == manifest
    assert store.read("_run/manifests/0000.json") == store.read(MANIFEST)
    assert read_shard_commit(store, manifest.shards[0]).done[1].id == "../b é\n"


def test_publishing_again_changes_nothing(store: LocalStore, tmp_path: Path):
    small_run(store)
    before = tree(tmp_path / "out")
    small_run(store)
    assert tree(tmp_path / "out") == before


def test_the_order_of_commits_does_not_matter(store: LocalStore):
    manifest = small_run(store)
    names = [shard.unit for shard in reversed(manifest.shards)]
    assert publish_all(store, names, records=5) == manifest


def test_ids_that_are_missing_leave_no_manifest(store: LocalStore):
    commit(store, "0000/000000-00000", [finished("a")], [failed("b")])
    with pytest.raises(
        IncompleteRun, match="3 records went in, 1 are done and 1 failed: run again; only what is missing"
    ):
        publish_all(store, ["0000/000000-00000"], records=3)
    with pytest.raises(NotFound, match=r"has no _MANIFEST\.json: the run is not finished; start it again, it resumes"):
        load_manifest(store)


def test_an_id_in_two_units_leaves_no_manifest(store: LocalStore):
    names = ["0000/000000-00000", "0000/000000-00001"]
    for name in names:
        commit(store, name, [finished("a")])
    with pytest.raises(IncompleteRun, match="1 ids are in more than one unit: run again into a new output"):
        publish_all(store, names, records=2)


def test_a_unit_of_another_job_leaves_no_manifest(store: LocalStore):
    commit(store, "0000/000000-00000", [finished("a")])
    with pytest.raises(IncompleteRun, match="unit 0000/000000-00000 was made with another configuration"):
        publish_all(store, ["0000/000000-00000"], records=1, fingerprint="other")


def test_a_later_generation_replaces_the_manifest_and_keeps_the_history(store: LocalStore):
    first = small_run(store)
    commit(store, "0001/000000-00000", [finished("new")], [failed("empty")])
    names = [*(shard.unit for shard in first.shards), "0001/000000-00000"]
    second = publish_all(store, names, generation=1, records=5, removed=1)
    assert (second.records, second.done, second.failed, second.removed) == (6, 5, 1, 1)
    assert [shard.failed for shard in second.shards] == [0, 0, 1]
    assert load_manifest(store) == second
    assert store.read("_run/manifests/0000.json") == dump_manifest(first)
    assert store.read("_run/manifests/0001.json") == dump_manifest(second)
    assert publish_all(store, names, generation=1, records=5, removed=1) == second


def test_a_stale_run_does_not_replace_a_newer_manifest(store: LocalStore):
    first = small_run(store)
    names = [shard.unit for shard in first.shards]
    commit(store, "0001/000000-00000", [], [failed("empty")])
    newer = publish_all(store, [*names, "0001/000000-00000"], generation=1, records=5)
    with pytest.raises(Conflict, match="has a newer generation 1: this run's 0 is stale"):
        publish_all(store, names, records=5)
    assert load_manifest(store) == newer


def test_another_manifest_of_the_same_generation_is_a_conflict(store: LocalStore):
    first = small_run(store)
    with pytest.raises(Conflict, match=r"_run/manifests/0000\.json already holds other content"):
        publish_all(store, [first.shards[0].unit], records=3)
    assert load_manifest(store) == first


def test_a_commit_record_that_changed_is_found(store: LocalStore, tmp_path: Path):
    manifest = small_run(store)
    path = tmp_path / "out" / "_run/commits/0000/000000-00000.json"
    path.write_bytes(path.read_bytes().replace(b'"chunks": 2', b'"chunks": 3'))
    with pytest.raises(Corrupt, match="the stored bytes changed"):
        read_shard_commit(store, manifest.shards[0])


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"format": 2}', b'{"format": 1}'])
def test_what_is_no_manifest_is_refused(store: LocalStore, data: bytes):
    store.create(MANIFEST, data)
    with pytest.raises(Corrupt, match=r"_MANIFEST\.json is no manifest of this version"):
        load_manifest(store)


@given(st.lists(st.text(max_size=3)))
def test_repeated_ids_are_counted(record_ids: list[str]):
    ids = Ids()
    for record_id in record_ids:
        ids.add(record_id)
    assert ids.repeated() == len(record_ids) - len(set(record_ids))


def _tiny(folder: str) -> None:
    tiny_run(LocalStore(folder))


def test_two_runs_at_once_on_one_output_converge(tmp_path: Path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_tiny, [str(tmp_path / "both")] * 4, chunksize=1)
        pool.close()
        pool.join()
    _tiny(str(tmp_path / "alone"))
    assert tree(tmp_path / "both") == tree(tmp_path / "alone")


def test_a_disk_that_fills_up_keeps_the_work_and_resumes(tmp_path: Path, monkeypatch):
    """Catalogue row 23: at every write in turn."""
    _tiny(str(tmp_path / "whole"))
    whole, fsync = tree(tmp_path / "whole"), os.fsync
    for number in range(1, 30):
        calls = itertools.count(1)

        def full(handle: int, calls=calls, number=number) -> None:
            if next(calls) >= number:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(handle)

        monkeypatch.setattr(os, "fsync", full)
        folder = tmp_path / f"full-{number}"
        try:
            _tiny(str(folder))
        except NoSpace:
            monkeypatch.setattr(os, "fsync", fsync)
            _tiny(str(folder))
            assert tree(folder) == whole
        else:
            break
    assert number > 12


def test_the_surroundings_change_nothing(tmp_path: Path):
    """Catalogue row 27: locale, time zone, working directory, hash seed and TMPDIR."""
    run = "from pipeline.store import LocalStore; from tests.pipeline.small_run import small_run; small_run(LocalStore"
    (tmp_path / "elsewhere").mkdir()
    trees = []
    for n, zone in enumerate(("UTC", "Asia/Kathmandu")):
        environment = {
            "TZ": zone,
            "PYTHONHASHSEED": f"{n}",
            "LC_ALL": ("C", "tr_TR.UTF-8")[n],
            "PATH": os.environ["PATH"],
        }
        environment |= {"PYTHONPATH": str(Path.cwd()), "TMPDIR": str(tmp_path / ("elsewhere" if n else ""))}
        folder = tmp_path / f"run-{n}"
        command = [sys.executable, "-c", f"{run}({str(folder)!r}))"]
        subprocess.run(command, env=environment, cwd=tmp_path / ("elsewhere" if n else ""), check=True, timeout=120)
        trees.append(tree(folder))
    assert trees[0] == trees[1]


_KILLED_IN_TURN = """
import os, sys
from pipeline.store import LocalStore
from tests.pipeline.small_run import tiny_run

root, operations = sys.argv[1], int(sys.argv[2])
for number in range(1, operations + 1):
    child = os.fork()  # of a process that has imported everything and started no thread
    if not child:
        os.environ["KILL_AT"] = f"{number}:{root}/counter-{number}"
        tiny_run(LocalStore(f"{root}/killed-{number}"))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_killed_at_every_store_operation_and_run_again_gives_the_same_tree(tmp_path: Path, capsys):
    run = "from pipeline.store import LocalStore; from tests.pipeline.small_run import tiny_run; tiny_run(LocalStore"
    counted = [sys.executable, "-c", f"{run}({str(tmp_path / 'whole')!r}))"]
    operations = count_operations(counted, tmp_path / "counter")
    whole = tree(tmp_path / "whole")
    assert MANIFEST in whole
    killed = [sys.executable, "-c", _KILLED_IN_TURN, str(tmp_path), str(operations)]
    assert run_killed(killed, 0, tmp_path / "counter").stdout.split() == ["-9"] * operations
    for number in range(1, operations + 1):
        folder = tmp_path / f"killed-{number}"
        assert (tree(folder).get(MANIFEST) or whole[MANIFEST]) == whole[MANIFEST]
        _tiny(str(folder))
        assert tree(folder) == whole
    with capsys.disabled():
        print(f" [{operations} kill points]", end="")
