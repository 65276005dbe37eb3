"""Plans: frozen once, resumed where nothing changed, a new generation where something did."""

from dataclasses import replace

import pytest

from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.plan import Plan, dump, identity, latest_plan, next_plan, parse, plan_path, write_plan
from pipeline.sources import Shard
from pipeline.store import LocalStore

JOB = Job(input=("in/*",), output="out")
SHARDS = (Shard("/in/a.txt", 1000, "sha256:1", "a.txt"),)
FACTS = identity(JOB, checkpoint_sha256="c" * 64, voice_sha256=None)


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def planned(store, job=JOB, shards=SHARDS, facts=FACTS, **options) -> Plan:
    plan, is_new = next_plan(store, job, shards, facts, **options)
    if is_new:
        write_plan(store, plan)
    return plan


def commit(store, *names: str) -> None:
    for name in names:
        store.create(f"_run/commits/{name}.json", b"{}")


def test_a_plan_is_frozen_and_found_again(store):
    first = planned(store)
    assert (first.generation, first.buckets, first.base) == (0, 1, ())
    assert planned(store, replace(JOB, unit_audio_s=5)) == first
    assert latest_plan(store) == first
    assert parse(dump(first), "x") == first


def test_a_corpus_that_moved_is_the_same_corpus(store):
    first = planned(store)
    moved = (replace(SHARDS[0], uri="gs://b/a.txt"),)
    assert planned(store, shards=moved) == replace(first, shards=moved)
    assert store.size(plan_path(1)) is None


def test_a_grown_input_starts_from_the_commits_that_were_there(store):
    planned(store)
    commit(store, "0000/000000-00000", "0000/000000-00001")
    grown = (*SHARDS, Shard("/in/b.txt", 10**9, "sha256:2", "b.txt"))
    second = planned(store, shards=grown)
    commit(store, "0000/000000-00002", "0001/000000-00000")  # the first came too late
    third = planned(store)
    assert (second.generation, second.buckets, second.base) == (1, 1, ("0000/000000-00000", "0000/000000-00001"))
    assert third.base == (*second.base, "0001/000000-00000")


def test_a_retry_is_a_generation_of_its_own_until_it_is_finished(store):
    planned(store)
    retry = planned(store, retry_failed=True)
    assert (retry.generation, retry.retry_failed) == (1, True)
    assert planned(store, retry_failed=True) == planned(store) == retry
    store.create("_run/manifests/0001.json", b"{}")
    assert planned(store, retry_failed=True).generation == 2


def test_another_configuration_is_refused_by_name_and_forced_from_nothing(store):
    planned(store)
    commit(store, "0000/000000-00000")
    other = FACTS | {"dtype": "bfloat16", "seed": 3, "checkpoint": "d" * 64}
    with pytest.raises(UsageError) as caught:
        next_plan(store, JOB, SHARDS, other)
    assert str(caught.value) == (
        f"{store.uri} was made with another configuration (checkpoint was '{'c' * 58}…, is '{'d' * 58}…; dtype was "
        "'float32', is 'bfloat16' and 1 more): choose another output or add --force"
    )
    assert (planned(store, facts=other, force=True).generation, latest_plan(store).base) == (1, ())


def test_of_two_plans_written_at_once_one_stays(store):
    plan, _ = next_plan(store, JOB, SHARDS, FACTS)
    write_plan(store, plan)
    write_plan(store, plan)
    with pytest.raises(UsageError, match="another run planned generation 0 meanwhile: run again"):
        write_plan(store, replace(plan, unit_audio_s=1))


def test_buckets_grow_with_the_input_within_bounds(store):
    def buckets(size_bytes: int) -> int:
        plan, _ = next_plan(store, replace(JOB, unit_audio_s=600), (replace(SHARDS[0], size_bytes=size_bytes),), FACTS)
        return plan.buckets

    assert [buckets(0), buckets(720_000), buckets(10**12)] == [1, 10, 4096]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"shards": [{}], "base": []}'])
def test_a_damaged_plan_is_one_line(data):
    with pytest.raises(UsageError, match=r"^here is no plan .*: choose another output$"):
        parse(data, "here")


def test_only_what_changes_results_is_in_the_identity():
    same = replace(JOB, output="b", runner="flink", unit_audio_s=9, max_failed="3", input=("c",))
    assert identity(same, checkpoint_sha256="c" * 64, voice_sha256=None) == FACTS
    assert identity(replace(JOB, seed=0), checkpoint_sha256="c" * 64, voice_sha256=None) == FACTS
    for other in (
        replace(JOB, seed=1),
        replace(JOB, language="de"),
        replace(JOB, devices=replace(JOB.devices, slots=2)),
    ):
        assert identity(other, checkpoint_sha256="c" * 64, voice_sha256=None) != FACTS
