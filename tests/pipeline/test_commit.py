"""Unit commits: what is written, that it repeats, that other results never mix, and rows carried over."""

import dataclasses
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from pipeline.commit import carry_unit, commit_path, dump_commit, find_commit, parse_commit, read_file_rows
from pipeline.outputs.audio import decode, pcm_sha256
from pipeline.outputs.unit_files import Layout
from pipeline.status import planned
from pipeline.store import Conflict, Corrupt, LocalStore
from pipeline.units import bucket_of
from pipeline.verify import verify
from tests.pipeline.conftest import Project
from tests.pipeline.killing import tree
from tests.pipeline.small_run import commit, failed, finished

UNIT = "0000/000003-00001"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def rows_of(store, unit_commit):
    return [row for file in unit_commit.files if file.kind == "tokens" for row in read_file_rows(store, file)]


def test_a_unit_is_its_files_and_then_its_record(store: LocalStore):
    made = commit(store, UNIT, [finished("a"), finished("b")], [failed("c")])
    assert [file.kind for file in made.files] == ["audio", "audio", "tokens", "failed"]
    assert [(record.id, record.chunks, record.samples) for record in made.done] == [("a", 2, 30000), ("b", 2, 30000)]
    assert [entry.record.id for entry in made.failed] == ["c"]
    assert (made.chunks, made.samples, made.audio_s, made.generation) == (4, 60000, 2.5, 0)
    listed = {file.path for file in made.files} | {"_run/commits/0000/000003-00001.json"}
    assert {entry.path for entry in store.list()} == listed
    assert find_commit(store, UNIT) == made
    assert find_commit(store, "0000/000003-00002") is None


def test_rows_are_measured_and_name_their_audio(store: LocalStore):
    made = commit(store, UNIT, [finished("a")])
    first, second = rows_of(store, made)
    assert first.audio_path == second.audio_path == made.files[0].path
    assert first.audio_sha256 == pcm_sha256(decode(store.read(made.files[0].path))[0])
    assert (first.num_samples, first.duration_s, first.sample_rate) == (12000, 0.5, 24000)
    assert first.peak_dbfs == pytest.approx(-6, abs=4)
    assert first.peak_dbfs != second.peak_dbfs


def test_audio_of_a_bucket_may_have_a_folder_of_its_own(store: LocalStore):
    made = commit(store, UNIT, [finished("a")], layout=Layout(by_bucket=True))
    assert made.files[0].path.startswith("audio/000003/a-")
    assert {row.audio_path for row in rows_of(store, made)} == {made.files[0].path}
    assert store.size(made.files[0].path) == made.files[0].bytes


@pytest.mark.parametrize("records", [1, 60])
def test_runs_of_several_buckets_have_several_folders(project: Project, records: int):
    """Where a record lies follows from its id alone; a small run has one folder."""
    project.write(a_jsonl=[{"id": f"r{n}", "text": "A short one."} for n in range(records)])
    assert project.run() == 0
    plan = planned(project.store)
    assert (plan.buckets > 1) == (records > 1)
    for row in project.rows().values():
        folder = f"/{bucket_of(row.record_id, plan.buckets):06d}" if plan.buckets > 1 else ""
        assert str(row.audio_path).startswith(f"audio{folder}/{row.record_id}-")
        assert project.pcm(row).size
    assert verify(project.store).is_whole


def test_audio_in_parquet(store: LocalStore):
    made = commit(store, UNIT, [finished("a"), finished("b")], layout=Layout(where="parquet"))
    assert [(file.kind, file.rows) for file in made.files] == [("audio_parquet", 2), ("tokens", 4)]
    assert {row.audio_path for row in rows_of(store, made)} == {made.files[0].path}
    assert made.samples == 60000


def test_a_run_that_stops_before_audio(store: LocalStore):
    made = commit(store, UNIT, [finished("a", audio=False)])
    assert [file.kind for file in made.files] == ["tokens"]
    assert (made.samples, rows_of(store, made)[0].audio_path) == (0, None)


def test_only_failed_records(store: LocalStore):
    made = commit(store, UNIT, [], [failed("c")])
    assert [file.kind for file in made.files] == ["failed"]
    assert find_commit(store, UNIT) == made


@pytest.mark.parametrize("bad", [np.full(100, np.nan, np.float32), np.zeros(0, np.float32)], ids=["nan", "empty"])
def test_audio_no_file_should_hold_fails_its_record_alone(store: LocalStore, bad):
    spoiled = dataclasses.replace(finished("a"), waveforms=(bad, bad))
    made = commit(store, UNIT, [spoiled, finished("b")])
    assert [record.id for record in made.done] == ["b"]
    (entry,) = made.failed
    assert (entry.record.id, entry.record.stage, entry.record.error) == ("a", "audio", "BadAudio")
    assert entry.fingerprint == "text:Hello there"
    assert {row.record_id for row in rows_of(store, made)} == {"b"}


@pytest.mark.parametrize("audio_format", ["flac", "wav", "mp3", "opus"])
@pytest.mark.parametrize("where", ["files", "parquet"])
def test_a_second_attempt_writes_the_same_bytes(tmp_path: Path, audio_format: str, where: str):
    layout = Layout(audio_format=audio_format, where=where)
    stores = [LocalStore(tmp_path / name) for name in ("one", "other")]
    for store in (*stores, stores[0]):
        commit(store, UNIT, [finished("a"), finished("b")], [failed("c")], layout)
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def test_an_attempt_with_another_result_changes_nothing(store: LocalStore, tmp_path: Path):
    made = commit(store, UNIT, [finished("a")])
    before = tree(tmp_path / "out")
    with pytest.raises(Conflict, match=r"_run/commits/0000/000003-00001.json already holds other content"):
        commit(store, UNIT, [finished("a", "Other words.")])
    assert {name: tree(tmp_path / "out")[name] for name in before} == before
    assert find_commit(store, UNIT) == made


def _attempt(folder: str) -> str:
    return dump_commit(commit(LocalStore(folder), UNIT, [finished(f"r{n}") for n in range(5)])).decode()


def test_two_processes_on_one_unit_converge(tmp_path: Path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_attempt, [str(tmp_path / "out")] * 2, chunksize=1)
        pool.close()
        pool.join()
    assert first == second
    assert _attempt(str(tmp_path / "alone")) == first
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


@pytest.mark.parametrize("where", ["files", "parquet"])
def test_rows_are_carried_over_without_computing(store: LocalStore, where: str):
    layout = Layout(where=where)
    earlier = commit(store, UNIT, [finished("a"), finished("b"), finished("c")], [failed("d")], layout)
    carried = carry_unit(store, "0001/000003-00000", UNIT, ["a", "c"], layout=layout)
    assert [record for record in earlier.done if record.id != "b"] == list(carried.done)
    assert carried.failed == ()
    assert (carried.chunks, carried.samples) == (4, 60000)
    before = [row for row in rows_of(store, earlier) if row.record_id != "b"]
    after = rows_of(store, carried)
    assert [row.id for row in after] == [row.id for row in before]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.fine, other.fine)
        assert one.audio_sha256 == other.audio_sha256
    paths = {file.path for file in carried.files}
    assert {row.audio_path for row in after} <= paths
    assert carry_unit(store, "0001/000003-00000", UNIT, ["a", "c"], layout=layout) == carried


def test_spoiled_files_are_not_carried(store: LocalStore, tmp_path: Path):
    made = commit(store, UNIT, [finished("a")])
    (path,) = [file.path for file in made.files if file.kind == "tokens"]
    (tmp_path / "out" / path).write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(Corrupt, match="the stored bytes changed"):
        carry_unit(store, "0001/000003-00000", UNIT, ["a"], layout=Layout())


def test_secrets_do_not_reach_the_commit(store: LocalStore):
    leaky = dataclasses.replace(failed("c"), message="GET https://x/?token=hunter22 failed\n" + "x" * 5000)
    made = commit(store, UNIT, [], [leaky])
    for path in (commit_path(UNIT), made.files[0].path):
        assert b"hunter22" not in store.read(path)
        assert len(store.read(path)) < 2000


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"done": 1}', b"\xff"])
def test_what_is_no_commit_record_is_refused(data: bytes):
    with pytest.raises(Corrupt, match=r"out/x\.json is no commit record .*: remove it and run again"):
        parse_commit(data, "out/x.json")


def test_a_record_comes_back_from_its_bytes(store: LocalStore):
    made = commit(store, UNIT, [finished("é\n")], [failed("\ud800")])
    assert parse_commit(dump_commit(made), "x") == made
