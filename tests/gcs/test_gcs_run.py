"""A whole small run on GCS: the same bytes as on a disk, under faults, and every reader of it."""

import uuid
from pathlib import Path

import pytest

from pipeline.commit import carry_unit, read_commit
from pipeline.export import FORMATS, export
from pipeline.manifest import load_manifest
from pipeline.outputs.unit_files import Layout
from pipeline.store import Conflict, Corrupt, LocalStore, Store, open_store
from pipeline.verify import verify
from tests.gcs.server import BUCKET, FaultProxy
from tests.pipeline.killing import tree
from tests.pipeline.small_run import commit, finished, small_run


def files_of(store: Store) -> dict[str, bytes]:
    return {entry.path: store.read(entry.path) for entry in store.list()}


@pytest.mark.parametrize("where", ["files", "parquet"])
def test_the_files_are_those_of_a_local_run(store: Store, tmp_path: Path, where: str):
    small_run(store, Layout(where=where))
    small_run(store, Layout(where=where))
    small_run(LocalStore(tmp_path), Layout(where=where))
    assert files_of(store) == tree(tmp_path)


def test_faults_change_nothing_but_the_time(faults: FaultProxy, prefix: str, tmp_path: Path):
    rules = [faults.add(fault, "POST", "/upload/") for fault in ("503", "lost", "429", "reset", "408", "lost")]
    with open_store(prefix) as store:
        small_run(store)
        rules += [faults.add("flipped", "GET", "alt=media"), faults.add("503", "GET", "alt=media")]
        assert verify(store).is_whole
        found = files_of(store)
    assert [rule.hits for rule in rules] == [1] * len(rules)
    small_run(LocalStore(tmp_path))
    assert found == tree(tmp_path)


def test_verify_finds_what_was_overwritten_behind_our_back(store: Store):
    manifest = small_run(store)
    assert verify(store).is_whole
    path = manifest.shards[0].files[0].path
    store.put(path, store.read(path)[:-1])
    report = verify(store)
    assert any(path in problem and "the stored bytes changed" in problem for problem in report.problems)


def test_two_attempts_with_other_results_do_not_mix(store: Store):
    unit = commit(store, made=[finished("a")])
    with pytest.raises(Conflict, match="already holds other content"):
        commit(store, made=[finished("a", "Other words.")])
    assert read_commit(store, unit.name) == unit


def test_rows_are_carried_over(store: Store):
    earlier = commit(store, made=[finished("a"), finished("b")])
    carried = carry_unit(store, "0001/000000-00000", earlier.name, ["b"], layout=Layout())
    assert carried.done == earlier.done[1:]


@pytest.mark.parametrize("export_format", FORMATS)
def test_exports_are_those_of_a_local_run(store: Store, gcs: str, tmp_path: Path, export_format: str):
    small_run(store)
    with open_store(f"gs://{BUCKET}/{uuid.uuid4().hex}") as there:
        export(store, there, export_format)
        found = files_of(there)
    here = LocalStore(tmp_path)
    export(store, here, export_format)
    assert found == tree(tmp_path)
    assert len(found) >= 1


def test_a_manifest_cut_short_is_refused(store: Store):
    small_run(store)
    store.put("_MANIFEST.json", store.read("_MANIFEST.json")[:100])
    with pytest.raises(Corrupt, match="is no manifest of this version"):
        load_manifest(store)
