"""From a job to a finished output: all is checked first, then the plan frozen, the graph run, the manifest written.

Runs in the launcher: reads text and JSON only, never a weight; imports neither jax nor Beam until the graph runs.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.buckets import read_buckets
from pipeline.commit import read_commit
from pipeline.devices import slot_steps, usage_of
from pipeline.display import describe_usage, duration
from pipeline.errors import UsageError
from pipeline.inputs import Found, check_holds_records, check_model, list_input, no_record, read_input
from pipeline.job import Job
from pipeline.jobfile import JOB_FILE, dump_stored
from pipeline.manifest import Manifest, publish
from pipeline.model import open_checkpoint, random_weights_note
from pipeline.outputs.metrics import Metrics, add_metrics
from pipeline.places import check_output, with_absolute_paths
from pipeline.plan import Plan, identity, next_plan, write_plan
from pipeline.prepare import Preparer, store_voice
from pipeline.progress import Tally
from pipeline.records import FailedRecord
from pipeline.report import write_report
from pipeline.runners import LOCAL
from pipeline.sources import Shard
from pipeline.sources.audio import read_audio
from pipeline.status import has_missing_units
from pipeline.store import Store, StoreError, open_store
from pipeline.supervisor import TooManyFailed, supervise
from pipeline.units import Ready

FINISHED_WITH_FAILURES = 3


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A job that can start: its plan (new, or to be resumed), the output's store, and what prepares its records."""

    job: Job
    plan: Plan
    is_new: bool
    store: Store
    preparer: Preparer


def check(
    job: Job, *, force: bool = False, retry_failed: bool = False, shards: Sequence[Shard] | None = None
) -> Checked:
    """Everything that can be checked without a model and without reading a record. UsageError for what is wrong.

    `shards` are listed unless given.
    """
    job = with_absolute_paths(job)
    preparer = Preparer(job)
    try:
        voice = preparer.job_voice()
        found = list_input(job) if shards is None else tuple(shards)
        check_output(job, found)
        store = open_store(job.output)
        sha256 = open_checkpoint(job.checkpoint).sha256
        facts = identity(
            job,
            checkpoint_sha256=sha256,
            voice_sha256=None if voice is None else voice.sha256,
        )
        plan, is_new = next_plan(store, job, found, facts, force=force, retry_failed=retry_failed)
        if not plan.any_model:
            check_model(job, preparer.config, found, sha256)
    except StoreError as error:
        raise UsageError(str(error)) from error
    return Checked(job=job, plan=plan, is_new=is_new, store=store, preparer=preparer)


def tell_of_random_weights(checkpoint: str) -> None:
    """Says on standard error when the audio will be noise."""
    if note := random_weights_note(checkpoint):
        print(note, file=sys.stderr)


def prepared_input(checked: Checked) -> Iterator[Ready | FailedRecord]:
    """Every record of the input, prepared here and now, audio files opened: what workers do, for `plan`."""
    for shard in checked.plan.shards:
        for item in read_input(checked.job, checked.preparer.config, shard, checked.plan.tokens_of):
            yield item if isinstance(item, FailedRecord) else _prepared(checked.preparer, item)


def _prepared(preparer: Preparer, found: Found) -> Ready | FailedRecord:
    if isinstance(found, Shard):
        opened = read_audio(found, preparer.sample_rate)
        if isinstance(opened, FailedRecord):
            return opened
    return preparer.prepare(found)


def launch(checked: Checked, beam_flags: list[str], *, debug: bool = False) -> int:
    """Freezes the plan, runs the graph for the units that have no commit, publishes the manifest; the exit code."""
    job, plan, store = checked.job, checked.plan, checked.store
    check_holds_records(job, checked.preparer.config, plan.shards)
    tell_of_random_weights(job.checkpoint)
    try:
        if checked.is_new:
            write_plan(store, plan)
        store_voice(store, job, checked.preparer.job_voice())
        store.put(JOB_FILE, dump_stored(job))
    except StoreError as error:
        raise UsageError(str(error)) from error
    start = time.monotonic()
    made = Tally()
    if checked.is_new or has_missing_units(store, plan):
        _run(checked, beam_flags, made, debug=debug)
    manifest = finish(store, job, plan)
    try:
        write_report(store)
    except StoreError as error:  # the run is whole without it
        print(f"no report was written: {error}", file=sys.stderr)
    print(_summary(manifest, job.output, time.monotonic() - start))
    if devices := describe_usage(made.usage):
        print(devices)
    return FINISHED_WITH_FAILURES if manifest.failed else 0


def _run(checked: Checked, beam_flags: list[str], made: Tally, *, debug: bool) -> None:
    """Runs the graph, adds up what was made, and notes how long it took, whether it ended well or not."""
    job, plan = checked.job, checked.plan
    started, start, finished = datetime.now(UTC), time.monotonic(), False
    try:
        if job.runner in LOCAL:
            supervise(job, plan, beam_flags, made, debug=debug)
        else:
            from pipeline.counters import counted  # these import Beam
            from pipeline.graph import run_graph

            _add_counted(made, counted(run_graph(job, plan, beam_flags)))
        finished = True
    finally:
        metrics = Metrics(
            started=started.isoformat(timespec="seconds"),
            wall_s=round(time.monotonic() - start, 3),
            finished=finished,
            records=made.made,
            failed=made.made_failed,
            chunks=made.chunks,
            units=made.units,
            units_skipped=made.skipped,
            audio_s=round(made.audio_s, 3),
            start_up_s=round(made.start_up_s, 3),
            runner=job.runner,
            device=made.device,
            slots=job.devices.slots,
            counters=slot_steps(made.usage),
            seconds={stage: round(one.seconds, 3) for stage, one in made.usage.items()},
            compiled=made.compiled,
        )
        with contextlib.suppress(StoreError):  # the run's own error matters more
            add_metrics(checked.store, metrics)


def _add_counted(made: Tally, counters: Mapping[str, int]) -> None:
    """Adds what workers of another machine counted: their progress is not seen here."""
    failed = counters.get("records_failed", 0)
    counted = Tally(
        made=counters.get("records_done", 0) + failed,
        made_failed=failed,
        chunks=counters.get("chunks_done", 0),
        units=counters.get("units_committed", 0),
        audio_s=counters.get("audio_ms", 0) / 1000,
        usage=usage_of(counters),
    )
    made.add_made(counted)
    made.skipped = counters.get("units_skipped", 0)


def finish(store: Store, job: Job, plan: Plan) -> Manifest:
    """Writes the manifest from the bucket records and the commits they name.

    TooManyFailed above `max_failed`; UsageError when no record came in.
    """
    buckets = list(read_buckets(store, plan.generation, plan.buckets))
    units = [name for bucket in buckets for name in bucket.units]
    records = sum(bucket.records for bucket in buckets)
    if records == 0:
        raise no_record(job)
    failed = sum(len(commit.failed) for commit in store.each(lambda name: read_commit(store, name), units))
    if failed > job.allowed_failures(records):
        raise TooManyFailed(failed, records, job.max_failed)
    return publish(
        store,
        generation=plan.generation,
        fingerprint=plan.fingerprint,
        commits=[*units, *(name for bucket in buckets for name in bucket.kept)],
        records=records,
        removed=sum(bucket.removed for bucket in buckets),
    )


def _summary(manifest: Manifest, output: str, elapsed_s: float) -> str:
    failed = f", {manifest.failed} failed (bark-beam failed {output})" if manifest.failed else ""
    removed = f", {manifest.removed} no longer in the input" if manifest.removed else ""
    return (
        f"{manifest.done} of {manifest.records} records done{failed}{removed}: {duration(manifest.audio_s)} of audio "
        f"in {output}, {duration(elapsed_s)}"
    )
