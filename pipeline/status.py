"""How far a run is, read from its output alone: the plan, the bucket records, the commits. From any machine."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.buckets import BucketRecord, bucket_path, read_buckets
from pipeline.commit import UnitCommit, commit_path, read_commit
from pipeline.errors import UsageError
from pipeline.manifest import MANIFEST, load_manifest
from pipeline.plan import Plan, commits_of, latest_plan
from pipeline.store import Store, StoreError, open_store


@dataclass(frozen=True, kw_only=True)
class Status:
    """`units` and `records` are None until every bucket has been dealt. Counts cover what is committed."""

    generation: int
    finished: bool
    committed: int
    units: int | None
    records: int | None
    done: int
    failed: int
    audio_s: float


def planned(store: Store) -> Plan:
    """The newest plan of an output; UsageError when nothing was ever run there."""
    plan = latest_plan(store)
    if plan is None:
        raise UsageError(f"{store.uri} holds no run: check the path")
    return plan


@contextlib.contextmanager
def open_run(uri: str) -> Iterator[tuple[Store, Plan]]:
    """The store of an output and its newest plan; UsageError when there is none, or none that can be read."""
    with contextlib.ExitStack() as opened:
        try:
            store = opened.enter_context(open_store(uri))
            plan = planned(store)
        except StoreError as error:
            raise UsageError(str(error)) from error
        yield store, plan


def is_finished(store: Store, plan: Plan) -> bool:
    """Whether the manifest is that of the plan's generation."""
    return store.size(MANIFEST) is not None and load_manifest(store).generation == plan.generation


def has_missing_units(store: Store, plan: Plan) -> bool:
    """Whether a bucket is still to be dealt or a unit to be committed."""
    if not _is_dealt(store, plan):
        return True
    units = (name for bucket in read_buckets(store, plan.generation, plan.buckets) for name in bucket.units)
    return any(store.each(lambda name: store.size(commit_path(name)) is None, units))


def _is_dealt(store: Store, plan: Plan) -> bool:
    return all(store.each(lambda b: store.size(bucket_path(plan.generation, b)) is not None, range(plan.buckets)))


def dealt_buckets(store: Store, plan: Plan) -> list[BucketRecord] | None:
    """The records of all buckets of a plan; None until the last one is dealt."""
    return list(read_buckets(store, plan.generation, plan.buckets)) if _is_dealt(store, plan) else None


def counted_commits(store: Store, plan: Plan, buckets: Sequence[BucketRecord] | None) -> tuple[str, ...]:
    """The names of the commits that count so far: those of the plan's generation, and the earlier ones it keeps."""
    kept = [name for bucket in buckets or () for name in bucket.kept]
    return (*commits_of(store, plan.generation), *kept)


def read_status(store: Store) -> Status:
    """The state of the newest generation."""
    plan = planned(store)
    buckets = dealt_buckets(store, plan)
    names = counted_commits(store, plan, buckets)
    commits = store.each(lambda name: read_commit(store, name), names)
    return status_of(plan, buckets, commits, finished=is_finished(store, plan))


def status_of(
    plan: Plan, buckets: Sequence[BucketRecord] | None, commits: Iterable[UnitCommit], *, finished: bool
) -> Status:
    """The state of a generation, from its buckets and the commits that count."""
    committed = done = failed = 0
    audio_s = 0.0
    for commit in commits:
        own = commit.generation == plan.generation
        committed += own
        done += len(commit.done)
        failed += len(commit.failed) if own else 0
        audio_s += commit.audio_s
    return Status(
        generation=plan.generation,
        finished=finished,
        committed=committed,
        units=None if buckets is None else sum(len(bucket.units) for bucket in buckets),
        records=None if buckets is None else sum(bucket.records for bucket in buckets),
        done=done,
        failed=failed,
        audio_s=audio_s,
    )


def current_commits(store: Store) -> Iterator[UnitCommit]:
    """The commits of the newest generation, one after the other."""
    yield from store.each(lambda name: read_commit(store, name), commits_of(store, planned(store).generation))
