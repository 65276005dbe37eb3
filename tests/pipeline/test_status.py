"""Status: how far a run is, at every stage of it."""

from pathlib import Path

import pytest

from pipeline.buckets import write_bucket
from pipeline.errors import UsageError
from pipeline.manifest import publish
from pipeline.plan import write_plan
from pipeline.status import Status, open_run, read_status
from pipeline.store import Denied, LocalStore
from pipeline.units import Dealt, Unit
from tests.pipeline.small_run import FINGERPRINT, commit, failed, finished, plan

UNITS = [["0000/000000-00000", "0000/000000-00001"], ["0000/000001-00000"]]


def test_a_run_from_its_plan_to_its_end(tmp_path: Path):
    store = LocalStore(tmp_path / "out")
    with pytest.raises(UsageError, match="holds no run: check the path"):
        read_status(store)

    write_plan(store, plan(0, 2))
    commit(store, UNITS[0][0], [finished("a")])
    known = {"generation": 0, "finished": False, "done": 1, "failed": 0, "audio_s": 1.25}
    assert read_status(store) == Status(**known, committed=1, units=None, records=None)

    for bucket, names in enumerate(UNITS):
        units = tuple(Unit(name=name) for name in names)
        write_bucket(store, 0, bucket, Dealt(units=units, kept=(), records=2 - bucket, done=0, removed=0))
    commit(store, UNITS[0][1], [], [failed("b")])
    assert read_status(store) == Status(**known | {"failed": 1}, committed=2, units=3, records=3)

    commit(store, UNITS[1][0], [finished("c")])
    publish(store, generation=0, fingerprint=FINGERPRINT, commits=UNITS[0] + UNITS[1], records=3)
    status = read_status(store)
    assert (status.finished, status.committed, status.done, status.failed) == (True, 3, 2, 1)


def test_a_later_generation_counts_what_it_keeps(tmp_path: Path):
    store = LocalStore(tmp_path / "out")
    commit(store, UNITS[0][0], [finished("a")], [failed("b")])
    for generation in (0, 1):
        write_plan(store, plan(generation, 1))
    new = Unit(name="0001/000000-00000")
    write_bucket(store, 1, 0, Dealt(units=(new,), kept=(UNITS[0][0],), records=2, done=1, removed=0))
    status = read_status(store)
    assert (status.generation, status.committed, status.units, status.done, status.failed) == (1, 0, 1, 1, 0)


def test_an_output_that_cannot_be_read_is_wrong_use(tmp_path: Path, monkeypatch):
    def denied(uri):
        raise Denied("gs://b/out: access denied (403)")

    monkeypatch.setattr("pipeline.status.open_store", denied)
    with pytest.raises(UsageError, match=r"access denied \(403\)"), open_run("gs://b/out"):
        pass
