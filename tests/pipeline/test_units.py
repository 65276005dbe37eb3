"""Dealing is by identity: order of arrival, duplicates and earlier commits have one outcome each."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Chunk, FailedRecord, Record
from pipeline.units import Done, Ready, bucket_of, deal


def ready(record_id: str, text: str = "Hello.", *, source: str = "a.txt", line: int = 1, audio_s: float = 10) -> Ready:
    record = Record(id=record_id, text=text, source=source, line=line)
    chunk = Chunk(text=text, start=0, end=len(text))
    return Ready(record=record, chunks=(chunk,), audio_s=audio_s, fingerprint=f"of {text}")


def done(record_id: str, commit: str, text: str = "Hello.", failed: FailedRecord | None = None) -> Done:
    return Done(id=record_id, fingerprint=f"of {text}", commit=commit, failed=failed)


def failure(record_id: str, error: str = "NoSpeech", attempts: int = 1) -> FailedRecord:
    return FailedRecord(
        id=record_id, source="a.txt", stage="semantic", error=error, message="nothing", attempts=attempts
    )


def dealt(found, earlier=(), *, unit_audio_s=30, generation=1, **options):
    return deal(found, list(earlier), generation=generation, bucket=7, unit_audio_s=unit_audio_s, **options)


def contents(result):
    return [[record.id for record in unit.records] for unit in result.units]


def test_units_hold_about_the_set_amount_of_audio_and_a_longer_record_stands_alone():
    result = dealt([ready(f"r{n}", audio_s=70 if n == 3 else 10) for n in range(9)])
    assert sorted(len(unit.ready) for unit in result.units) != [9]
    for unit in result.units:
        assert sum(one.audio_s for one in unit.ready) <= 30 or [one.id for one in unit.ready] == ["r3"]
    assert [unit.name for unit in result.units] == [f"0001/000007-{n:05d}" for n in range(len(result.units))]
    assert result.records == 9


def test_the_cut_is_this_one():
    assert contents(dealt([ready(f"r{n}") for n in range(7)])) == [["r6", "r5", "r1"], ["r4", "r2", "r0"], ["r3"]]


@given(st.data())
def test_the_order_of_arrival_changes_nothing(data):
    found = [
        *(ready(f"r{n % 12}", f"Text {n % 3}.", line=n) for n in range(20)),
        *(failure(f"r{n}", f"Bad{n}") for n in range(10, 15)),
    ]
    earlier = [done(f"r{n}", f"0000/000007-{n % 3:05d}", f"Text {n % 2}.") for n in range(8)]
    first = dealt(found, earlier)
    assert dealt(data.draw(st.permutations(found)), data.draw(st.permutations(earlier))) == first


@given(st.lists(st.tuples(st.text(max_size=3), st.booleans(), st.floats(0.1, 50)), max_size=40), st.floats(1, 100))
def test_every_id_is_in_exactly_one_unit(rows, unit_audio_s):
    found = [ready(i, audio_s=s) if good else failure(i) for i, good, s in rows]
    units = dealt(found, unit_audio_s=unit_audio_s).units
    ids = [record.id for unit in units for record in unit.records]
    assert sorted(ids) == sorted({i for i, _, _ in rows})


def test_equal_duplicates_are_done_once_from_the_first_place():
    result = dealt([ready("x", source="b.txt", line=1), ready("x", source="a.txt", line=9)])
    assert [(one.record.source, one.record.line) for one in result.units[0].ready] == [("a.txt", 9)]


def test_different_duplicates_fail_all_together():
    result = dealt([ready("x", "One."), ready("x", "Two.", source="b.txt"), ready("y")])
    [unit] = result.units
    assert [one.id for one in unit.ready] == ["y"]
    assert unit.failed == (
        FailedRecord(
            id="x",
            source="a.txt",
            stage="read",
            error="DuplicateId",
            message="2 different records share this id, in a.txt and b.txt: make ids unique",
        ),
    )


def test_a_commit_that_is_still_current_is_kept_and_only_the_new_is_run():
    result = dealt(
        [ready("x"), ready("y"), ready("z")], [done("x", "0000/000007-00000"), done("y", "0000/000007-00000")]
    )
    assert (contents(result), result.kept) == ([["z"]], ("0000/000007-00000",))
    assert (result.records, result.done, result.removed) == (3, 2, 0)


def test_a_removed_record_is_reported_and_its_commit_kept():
    result = dealt([ready("x")], [done("x", "0000/000007-00000"), done("gone", "0000/000007-00000")])
    assert (result.units, result.kept, result.removed, result.done) == ((), ("0000/000007-00000",), 1, 1)


def test_a_changed_record_is_redone_and_its_unit_mates_are_carried():
    commit = "0000/000007-00000"
    result = dealt([ready("x", "New."), ready("y"), ready("z")], [done(i, commit) for i in "xyz"])
    assert contents(result) == [["x"], []]
    assert result.units[1].carried == (commit, ("y", "z"))
    assert (result.kept, result.done) == ((), 0)


def test_what_was_carried_is_not_carried_again():
    old, new = "0000/000007-00000", "0001/000007-00001"
    earlier = [done("x", old, "Old."), done("y", old), done("x", "0001/000007-00000"), done("y", new)]
    result = dealt([ready("x"), ready("y")], earlier, generation=2)
    assert (result.units, result.kept) == ((), ("0001/000007-00000", new))


def test_failed_records_stay_failed_until_they_are_retried_or_changed():
    commit = "0000/000007-00000"
    earlier = [done("x", commit), done("y", commit, failed=failure("y", attempts=2))]
    [unit] = dealt([ready("x"), ready("y")], earlier).units
    assert (unit.ready, unit.failed, unit.fingerprints) == ((), (failure("y", attempts=2),), {"y": "of Hello."})
    [unit] = dealt([ready("x"), ready("y")], earlier, retry_failed=True).units
    assert unit.records == (replace(ready("y"), attempts=3, attempt=2),)
    [unit] = dealt([ready("x"), ready("y", "New.")], earlier).units
    assert unit.records == (ready("y", "New."),)


def test_buckets_come_from_the_id_alone():
    assert [bucket_of(i, 8) for i in ("", "a", "é", "é", "\ud800")] == [4, 2, 3, 3, 4]
