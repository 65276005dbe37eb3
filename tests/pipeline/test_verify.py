"""Verify: a whole run passes; every way to spoil one is found and named (catalogue row 13)."""

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commit import carry_unit, commit_path
from pipeline.manifest import MANIFEST, Manifest, load_manifest, publish, read_shard_commit
from pipeline.outputs.unit_files import Layout
from pipeline.plan import Plan, write_plan
from pipeline.store import LocalStore, NotFound
from pipeline.verify import LISTED, Report, verify
from tests.pipeline.small_run import FINGERPRINT, commit, failed, finished, small_run


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def paths_of(store: LocalStore, manifest: Manifest, kind: str) -> list[Path]:
    files = [file for shard in manifest.shards for file in read_shard_commit(store, shard).files]
    return [Path(store.uri) / file.path for file in files if file.kind == kind]


@pytest.mark.parametrize("where", ["files", "parquet"])
@pytest.mark.parametrize("audio_format", ["flac", "wav", "mp3", "opus"])
def test_a_whole_run_passes(store: LocalStore, where: str, audio_format: str):
    manifest = small_run(store, Layout(where=where, audio_format=audio_format))
    report = verify(store)
    assert report.problems == []
    assert report.is_whole
    assert (report.shards, report.done, report.failed, report.chunks) == (2, 4, 1, 7)
    assert report.strays == []
    assert report.bytes == manifest.bytes
    assert report.files == (7 if where == "files" else 5)
    assert report.audio_s == pytest.approx(manifest.audio_s)


def test_a_run_of_tokens_only_passes(store: LocalStore):
    commit(store, "0000/000000-00000", [finished("a", audio=False)])
    publish(store, generation=0, fingerprint=FINGERPRINT, commits=["0000/000000-00000"], records=1)
    assert verify(store).is_whole


def test_an_unfinished_run_cannot_be_verified(store: LocalStore):
    commit(store, "0000/000000-00000", [finished("a")])
    with pytest.raises(NotFound, match=r"has no _MANIFEST\.json: the run is not finished"):
        verify(store)


@pytest.mark.parametrize("where", ["files", "parquet"])
def test_kept_and_carried_units_pass(store: LocalStore, where: str):
    layout = Layout(where=where)
    first = small_run(store, layout)
    kept, dropped = (shard.unit for shard in first.shards)
    carry_unit(store, "0001/000001-00000", dropped, ["A"], layout=layout)
    commit(store, "0001/000001-00001", [finished("d|e", "Changed.")], [failed("empty")], layout)
    names = [kept, "0001/000001-00000", "0001/000001-00001"]
    publish(store, generation=1, fingerprint=FINGERPRINT, commits=names, records=5)
    report = verify(store)
    assert report.problems == []
    assert (report.done, report.failed) == (4, 1)
    superseded = paths_of(store, first, "failed") + paths_of(store, first, "tokens")[1:]
    assert {str(path.relative_to(store.uri)) for path in superseded} - set(report.strays) <= {
        file.path for file in load_manifest(store).shards[2].files
    }


def spoiled(store: LocalStore) -> Report:
    report = verify(store)
    assert not report.is_whole
    return report


@pytest.mark.parametrize("kind", ["audio", "tokens", "failed"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_spoiled_file_is_named(store: LocalStore, kind: str, how: str):
    path = paths_of(store, small_run(store), kind)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(data) if how == "flipped" else bytes(data[: len(data) // 2]))
    said = "is not there" if how == "gone" else "the stored bytes changed"
    assert any(f"{path} " in problem and said in problem for problem in spoiled(store).problems)


def test_a_spoiled_parquet_of_audio_is_named(store: LocalStore):
    path = paths_of(store, small_run(store, Layout(where="parquet")), "audio_parquet")[0]
    path.write_bytes(path.read_bytes()[:-100])
    assert any(str(path) in problem for problem in spoiled(store).problems)


def test_a_changed_commit_record_is_named(store: LocalStore):
    path = Path(store.uri) / commit_path(small_run(store).shards[0].unit)
    path.write_bytes(path.read_bytes() + b" ")
    (problem, *totals) = spoiled(store).problems
    assert problem.startswith("unit 0000/000000-00000: ")
    assert "the stored bytes changed" in problem
    assert any("bytes in all, its units come to" in line for line in totals)


@pytest.mark.parametrize(("field", "said"), [("done", "4"), ("failed", "1"), ("chunks", "7")])
def test_a_manifest_whose_totals_are_wrong_is_named(store: LocalStore, field: str, said: str):
    small_run(store)
    path = Path(store.uri) / MANIFEST
    values = json.loads(path.read_bytes())
    path.write_text(json.dumps(values | {field: 99}))
    assert f"the manifest says 99 {field} in all, its units come to {said}" in spoiled(store).problems


def rewritten(store: LocalStore, change) -> Report:
    """The report after a change to the first commit record that hides its traces in the manifest."""
    manifest = Path(store.uri) / MANIFEST
    values = json.loads(manifest.read_bytes())
    path = Path(store.uri) / commit_path(values["shards"][0]["unit"])
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps(record))
    values["shards"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(values))
    return spoiled(store)


def test_a_record_that_is_another_than_its_rows_is_named(store: LocalStore):
    small_run(store)
    report = rewritten(store, lambda record: record["done"][0].update(id="other"))
    assert "unit 0000/000000-00000: record 'a' has rows but is not listed as done" in report.problems
    assert "unit 0000/000000-00000: 1 records are listed as done but have no rows" in report.problems


def test_a_record_with_other_samples_or_chunks_is_named(store: LocalStore):
    small_run(store)
    report = rewritten(store, lambda record: record["done"][0].update(samples=1, chunks=9))
    assert "unit 0000/000000-00000: record 'a' has 2 rows, must have 9" in report.problems
    assert "unit 0000/000000-00000: record 'a' has audio whose samples are not those of its row" in report.problems


def test_an_id_that_is_there_twice_is_named(store: LocalStore):
    small_run(store)
    report = rewritten(store, lambda record: record["done"][0].update(id="A"))
    assert "1 ids are in more than one unit" in report.problems


def test_failed_lines_that_are_not_the_records_are_named(store: LocalStore):
    small_run(store)
    report = rewritten(store, lambda record: record["failed"][0]["record"].update(id="other"))
    said = "unit 0000/000000-00000: has 1 failed lines, which are not its 1 failed records"
    assert said in report.problems


def test_other_counts_or_another_job_are_named(store: LocalStore):
    small_run(store)
    report = rewritten(store, lambda record: record.update(chunks=8, fingerprint="0" * 64))
    assert "unit 0000/000000-00000: has 8 chunks, the manifest says 3" in report.problems
    assert any("has the fingerprint 0000000000000000, the manifest f0f0f0f0f0f0f0f0" in p for p in report.problems)


def test_files_that_are_not_named_are_told_but_no_problem(store: LocalStore, capsys):
    write_plan(store, Plan(generation=0, fingerprint=FINGERPRINT, identity={}, shards=(), buckets=1, unit_audio_s=600))
    small_run(store)
    left = [f"tokens/{n:016x}.parquet" for n in range(7)]
    for path in (*left, "audio/stray.txt"):
        store.create(path, b"of somebody")
    report = verify(store)
    assert report.is_whole
    assert (report.strays, report.foreign) == (left, ["audio/stray.txt"])
    assert main(["verify", store.uri]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        f"left by stopped or superseded attempts, may be removed: 7 files: {', '.join(left[:5])} and 2 more"
    )
    assert said[1] == "not written by bark-beam: 1 files: audio/stray.txt"


def test_very_many_problems_are_counted_and_some_listed():
    report = Report()
    for n in range(LISTED + 10):
        report.problems.add(f"{n}")
    assert (report.problems.total, len(report.problems), report.is_whole) == (LISTED + 10, LISTED, False)
