"""Estimates count as units are dealt: each id once, different records of one id as a failure."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.estimate import estimate, result_key
from pipeline.plan import Plan
from pipeline.records import Chunk, FailedRecord, Record
from pipeline.units import Ready, bucket_of, deal


def plan(buckets: int = 1, unit_audio_s: float = 10) -> Plan:
    return Plan(generation=0, fingerprint="", identity={}, shards=(), buckets=buckets, unit_audio_s=unit_audio_s)


def ready(record_id: str, content: int = 0, line: int = 1) -> Ready:
    record = Record(id=record_id, text="x", source="a.txt", line=line, document="d")
    chunks = (Chunk(text="x", start=0, end=1),) * 2
    return Ready(record=record, chunks=chunks, audio_s=6, fingerprint=f"{content:064x}"[::-1])


def failed(record_id: str, error: str = "EmptyText", line: int = 1) -> FailedRecord:
    return FailedRecord(id=record_id, source=f"b:c.txt:{line}", stage="text", error=error, message="why")


def test_sums_of_records_done_failed_and_left():
    done = ready("a")
    found = [(done, 5), (ready("b"), 7), (ready("c"), 7), (failed("d"), 0)]
    total = estimate(found, plan(), {result_key("a", done.fingerprint)})
    assert (total.records, total.chunks, total.tokens, total.audio_s) == (4, 6, 19, 18)
    assert (total.done, total.left_s, total.units, total.documents) == (1, 12, 2, {"d"})
    assert (total.failing, total.faults, total.examples) == (1, {"EmptyText": 1}, ["b:c.txt:1: EmptyText: why"])


def test_nothing_found():
    assert (estimate([], plan()).records, estimate([], plan()).failing) == (0, 0)


def test_different_records_of_one_id_are_one_failure_that_names_its_places():
    found = [ready("x", line=1), ready("x", line=2), ready("x", 1, line=3), ready("y", line=4), failed("y", line=5)]
    total = estimate(((one, 1) for one in found), plan())
    assert (total.records, total.chunks, dict(total.faults)) == (2, 0, {"DuplicateId": 2})
    assert set(total.examples[1:]) == {
        "a.txt:1: DuplicateId: a.txt:3 is another record with this id: make ids unique",
        "a.txt:4: DuplicateId: b:c.txt:5 is another record with this id: make ids unique",
    }


def test_of_very_many_failures_a_few_of_each_kind_are_shown():
    found = [failed(str(n), error) for error in ("EmptyText", "BadJson") for n in range(10)]
    found = [failed(f"{one.error}{one.id}", one.error) for one in found]
    found += [ready(str(n % 9), n) for n in range(18)]
    total = estimate(((one, 0) for one in found), plan())
    assert total.faults == {"EmptyText": 10, "BadJson": 10, "DuplicateId": 9}
    assert [example.split(": ")[1] for example in total.examples] == ["EmptyText"] * 3 + ["BadJson"] * 3 + [
        "DuplicateId"
    ] * 3


ITEMS = st.lists(
    st.builds(ready, st.sampled_from("abcd"), st.integers(0, 1))
    | st.builds(failed, st.sampled_from("abcd"), st.sampled_from(["EmptyText", "BadJson"])),
    max_size=12,
)


@given(items=ITEMS, buckets=st.integers(1, 3))
def test_units_are_dealt_as_estimated(items: list, buckets: int):
    total = estimate(((one, 1) for one in items), plan(buckets))
    dealt = [
        deal([one for one in items if bucket_of(one.id, buckets) == n], [], generation=0, bucket=n, unit_audio_s=10)
        for n in range(buckets)
    ]
    units = [unit for one in dealt for unit in one.units]
    assert total.records == sum(one.records for one in dealt)
    assert total.failing == sum(len(unit.failed) for unit in units)
    assert total.audio_s == sum(one.audio_s for unit in units for one in unit.ready)
