"""The graph's steps: thin DoFns around pure functions. Each opens what it needs in `setup`, from the job's URIs."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam

from pipeline.assemble import Made, assemble
from pipeline.buckets import write_bucket
from pipeline.commit import Layout, UnitCommit, carry_unit, commit_unit, find_commit, read_commit
from pipeline.counters import count
from pipeline.inputs import Found, read_input
from pipeline.isolation import EncodeRequest
from pipeline.job import Job
from pipeline.model import open_checkpoint
from pipeline.overlap import OverlappedDoFn
from pipeline.plan import Plan
from pipeline.prepare import chunk_id, worker_preparer
from pipeline.progress import errors_reported, report
from pipeline.records import FailedRecord
from pipeline.sources import Shard
from pipeline.sources.audio import read_audio
from pipeline.store import open_store
from pipeline.synthesize import UnitOutcomes, UnitRequests
from pipeline.units import Done, Ready, Unit, bucket_of, deal


class ReadShards(beam.DoFn):
    """Shard -> its records, as a stream."""

    def __init__(self, job: Job, plan: Plan):
        self._job, self._plan = job, plan

    def setup(self):
        with errors_reported():
            self._config = open_checkpoint(self._job.checkpoint).config

    def process(self, shard: Shard) -> Iterator[Found | FailedRecord]:
        count("shards_in")
        with errors_reported():
            for item in read_input(self._job, self._config, shard, self._plan.tokens_of):
                count("records_read")
                yield item


class PrepareRecords(beam.DoFn):
    """Record -> (bucket, the record ready to be synthesised or failed)."""

    def __init__(self, job: Job, plan: Plan):
        self._job, self._plan = job, plan

    def setup(self):
        with errors_reported():
            self._preparer = worker_preparer(self._job, self._plan, open_store(self._job.output))

    def process(self, item: Found | FailedRecord) -> Iterator[tuple[int, Ready | FailedRecord]]:
        prepared = item if isinstance(item, FailedRecord) else self._preparer.prepare(item)
        count("records_ready" if isinstance(prepared, Ready) else "records_refused")
        yield bucket_of(prepared.id, self._plan.buckets), prepared


class ReadCommits(beam.DoFn):
    """Name of an earlier commit -> (bucket, what became of a record) for each of its records."""

    def __init__(self, output: str, buckets: int):
        self._output, self._buckets = output, buckets

    def setup(self):
        with errors_reported():
            self._store = open_store(self._output)

    def process(self, name: str) -> Iterator[tuple[int, Done]]:
        with errors_reported():
            commit = read_commit(self._store, name)
        for done in results_of(commit):
            yield bucket_of(done.id, self._buckets), done


def results_of(commit: UnitCommit) -> Iterator[Done]:
    """A commit's records, done and failed."""
    for record in commit.done:
        yield Done(id=record.id, fingerprint=record.fingerprint, commit=commit.name)
    for entry in commit.failed:
        yield Done(id=entry.record.id, fingerprint=entry.fingerprint, commit=commit.name, failed=entry.record)


class DealUnits(beam.DoFn):
    """A bucket's records and earlier results -> its units; a bucket record tells the launcher how many there are."""

    def __init__(self, output: str, plan: Plan):
        self._output, self._plan = output, plan

    def setup(self):
        with errors_reported():
            self._store = open_store(self._output)

    def process(self, element: tuple[int, dict[str, Iterable[Any]]]) -> Iterator[Unit]:
        bucket, groups = element
        dealt = deal(
            groups["found"],
            list(groups["earlier"]),
            generation=self._plan.generation,
            bucket=bucket,
            unit_audio_s=self._plan.unit_audio_s,
            retry_failed=self._plan.retry_failed,
        )
        with errors_reported():
            write_bucket(self._store, self._plan.generation, bucket, dealt)
        report(records=dealt.records, done=dealt.done)
        count("records_dealt", dealt.records)
        count("units_out", len(dealt.units))
        yield from dealt.units


class RequestUnits(OverlappedDoFn):
    """Unit -> the unit with a request for each chunk, unless it has a commit already. The next unit is made ready
    while the model works on this one."""

    def __init__(self, job: Job, plan: Plan):
        self._job, self._plan = job, plan

    def setup(self):
        super().setup()
        with errors_reported():
            self._store = open_store(self._job.output)
            self._preparer = worker_preparer(self._job, self._plan, self._store)

    def work(self, unit: Unit) -> UnitRequests | None:
        with errors_reported():
            commit = find_commit(self._store, unit.name)
        if commit is not None:
            report(done=len(commit.done), failed=len(commit.failed), skipped=1)
            return None
        return self._encode_requests(unit) if self._job.stages.from_ == "audio" else self._requests(unit)

    def outputs(self, requests: UnitRequests | None) -> Iterator[UnitRequests]:
        count("units_in")
        if requests is None:
            count("units_skipped")
        else:
            count("chunks_in", len(requests))
            yield requests

    def _requests(self, unit: Unit) -> UnitRequests:
        requests = [request for ready in unit.ready for request in self._preparer.requests(ready)]
        return UnitRequests(unit=unit, requests=tuple(requests))

    def _encode_requests(self, unit: Unit) -> UnitRequests:
        """Opens the unit's recordings here, where no step follows that would shuffle them."""
        records, requests = [], []
        for one in unit.records:
            if isinstance(one, Ready) and one.recording is not None and one.failed is None:
                with errors_reported():
                    read = read_audio(one.recording, self._preparer.sample_rate)
                if isinstance(read, FailedRecord):
                    one = replace(one, failed=replace(read, attempts=one.attempts))
                else:
                    requests.append(EncodeRequest(id=chunk_id(one.id, 0), audio=read.waveform))
            records.append(one)
        return UnitRequests(unit=replace(unit, records=tuple(records)), requests=tuple(requests))


class CommitUnits(OverlappedDoFn):
    """A unit's outcomes -> its files and commit record; out goes a line about it. The model works on the next unit
    meanwhile."""

    def __init__(self, job: Job, plan: Plan):
        self._job, self._plan = job, plan

    def setup(self):
        super().setup()
        with errors_reported():
            self._store = open_store(self._job.output)
            self._preparer = worker_preparer(self._job, self._plan, self._store)
        self._made = Made(
            job=self._job,
            model_sha256=self._plan.identity["checkpoint"],
            sample_rate=self._preparer.sample_rate,
            voice=self._preparer.voice,
        )

    def work(self, element: UnitOutcomes) -> UnitCommit:
        with errors_reported():
            commit = self._commit(element)
        done, failed = len(commit.done), len(commit.failed)
        made = {"made": done + failed, "made_failed": failed, "chunks": commit.chunks, "units": 1}
        report(done=done, failed=failed, audio_s=commit.audio_s, **made)
        return commit

    def outputs(self, commit: UnitCommit) -> Iterator[str]:
        done, failed = len(commit.done), len(commit.failed)
        count("units_committed")
        count("records_done", done)
        count("records_failed", failed)
        count("chunks_done", commit.chunks)
        count("audio_ms", round(1000 * commit.audio_s))
        yield f"{commit.name} {done} done {failed} failed"

    def _commit(self, element: UnitOutcomes) -> UnitCommit:
        unit, layout = element.unit, layout_of(self._job, self._plan, self._made.sample_rate)
        if unit.carried is not None:
            return carry_unit(self._store, unit.name, *unit.carried, layout=layout)
        finished, failed = assemble(unit, element.outcomes, self._made)
        return commit_unit(
            self._store,
            unit.name,
            finished,
            failed,
            fingerprint=self._plan.fingerprint,
            record_fingerprints=unit.fingerprints,
            layout=layout,
        )


def layout_of(job: Job, plan: Plan, sample_rate: int) -> Layout:
    """How the job's audio is stored."""
    return Layout(
        audio_format=job.audio.format,
        where=job.audio.where,
        silence_s=job.chunk.silence_s,
        sample_rate=sample_rate,
        by_bucket=plan.buckets > 1,
    )
