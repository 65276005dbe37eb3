"""A unit's commit: its files first, each written once, then one small record that makes them count.

Nothing here knows the time or the host: two attempts of one unit write the same bytes, so both succeed. An attempt
that comes to another result meets Conflict and changes nothing.
"""

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from pipeline.outputs.audio_parquet import read_audio
from pipeline.outputs.failed import clean, failed_lines
from pipeline.outputs.tokens import TokenRow, by_record, read_tokens, write_tokens
from pipeline.outputs.unit_files import CommittedFile, FinishedRecord, Layout, UnitFiles
from pipeline.records import FailedRecord
from pipeline.store import Corrupt, NotFound, Store

COMMITS = "_run/commits"


@dataclass(frozen=True, kw_only=True)
class DoneRecord:
    """A record that was made. `fingerprint` digests what its result depends on; `samples` is its whole audio."""

    id: str
    fingerprint: str
    chunks: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class FailedInUnit:
    """A record that failed, with the fingerprint it had (empty when it could not even be read)."""

    fingerprint: str
    record: FailedRecord


@dataclass(frozen=True, kw_only=True)
class UnitCommit:
    """What a unit came to. `fingerprint` is the job's; `samples` of audio at `sample_rate` Hz in all."""

    name: str
    fingerprint: str
    done: tuple[DoneRecord, ...]
    failed: tuple[FailedInUnit, ...]
    files: tuple[CommittedFile, ...]
    chunks: int
    samples: int
    sample_rate: int

    @property
    def generation(self) -> int:
        return int(self.name.split("/")[0])

    @property
    def audio_s(self) -> float:
        return self.samples / self.sample_rate


def commit_path(name: str) -> str:
    """Where the commit record of the unit `0000/000003-00001` lies."""
    return f"{COMMITS}/{name}.json"


def bucket_of_unit(name: str) -> int:
    """The bucket that a unit is cut from, which its name tells."""
    return int(name.split("/")[1].split("-")[0])


def dump_commit(commit: UnitCommit) -> bytes:
    """The commit record's bytes: ASCII JSON, keys in order."""
    return (json.dumps(asdict(commit), indent=1, sort_keys=True) + "\n").encode()


def parse_commit(data: bytes, where: str) -> UnitCommit:
    """A commit from its record's bytes; Corrupt when they are none."""
    try:
        values = json.loads(data)
        values["done"] = tuple(DoneRecord(**record) for record in values["done"])
        values["files"] = tuple(CommittedFile(**file) for file in values["files"])
        values["failed"] = tuple(
            FailedInUnit(fingerprint=entry["fingerprint"], record=FailedRecord(**entry["record"]))
            for entry in values["failed"]
        )
        return UnitCommit(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt(f"{where} is no commit record ({type(error).__name__}): remove it and run again") from error


def read_commit(store: Store, name: str) -> UnitCommit:
    """The commit of a unit that has one."""
    path = commit_path(name)
    return parse_commit(store.read(path), f"{store.uri}/{path}")


def find_commit(store: Store, name: str) -> UnitCommit | None:
    """The commit of a unit, or None when the unit is still to be done."""
    try:
        return read_commit(store, name)
    except NotFound:
        return None


def commit_unit(
    store: Store,
    name: str,
    finished: Iterable[FinishedRecord],
    failed: Sequence[FailedRecord],
    *,
    fingerprint: str,
    record_fingerprints: Mapping[str, str],
    layout: Layout,
) -> UnitCommit:
    """Writes a unit's files and then its commit record. `record_fingerprints` maps ids to what their results depend on.

    Takes finished records one by one and lets go of their audio. One whose audio no file should hold joins the
    failed. Conflict when another attempt committed something else.
    """
    unit = UnitFiles(store, layout, bucket_of_unit(name))
    failed = list(failed)
    prepared = unit.prepare(finished, failed)
    if layout.where == "files":
        unit.files += store.each(unit.write_file, prepared)
    else:
        unit.audio_rows += (item.row for item in prepared)
        unit.write_parquet()
    return _finish(store, name, unit, failed, fingerprint, record_fingerprints)


def carry_unit(store: Store, name: str, source: str, ids: Collection[str], *, layout: Layout) -> UnitCommit:
    """A unit made of the records `ids` of an earlier commit, without computing anything again.

    Corrupt when the earlier files are not what its record says.
    """
    earlier = read_commit(store, source)
    wanted = frozenset(ids)
    unit = UnitFiles(store, layout, bucket_of_unit(name))
    rows = [row for file in earlier.files if file.kind == "tokens" for row in read_file_rows(store, file)]
    unit.rows = [row for row in rows if row.record_id in wanted]
    paths = {row.audio_path for row in unit.rows}
    for file in earlier.files:
        if file.kind == "audio" and file.path in paths:
            unit.files.append(file)
        elif file.kind == "audio_parquet":
            data = store.read(file.path, sha256=file.sha256)
            unit.audio_rows += (row for row in read_audio(io.BytesIO(data)) if row.id in wanted)
    unit.write_parquet()
    done = {record.id: record for record in earlier.done if record.id in wanted}
    unit.samples = {record.id: record.samples for record in done.values()}
    fingerprints = {record.id: record.fingerprint for record in done.values()}
    return _finish(store, name, unit, [], earlier.fingerprint, fingerprints)


def read_file_rows(store: Store, file: CommittedFile, columns: Sequence[str] | None = None) -> Iterator[TokenRow]:
    """The rows of a committed token file; Corrupt when its bytes are not those of its record."""
    yield from read_tokens(io.BytesIO(store.read(file.path, sha256=file.sha256)), columns)


def _finish(
    store: Store,
    name: str,
    unit: UnitFiles,
    failed: Sequence[FailedRecord],
    fingerprint: str,
    record_fingerprints: Mapping[str, str],
) -> UnitCommit:
    """Writes the token and failed files, and last of all the record by which the unit counts."""
    if unit.rows:
        unit.write_content("tokens", "tokens", "parquet", write_tokens(unit.rows), len(unit.rows))
    if failed:
        unit.write_content("failed", "failed", "jsonl", failed_lines(failed), len(failed))
    done = tuple(
        DoneRecord(
            id=rows[0].record_id,
            fingerprint=record_fingerprints[rows[0].record_id],
            chunks=len(rows),
            samples=unit.samples[rows[0].record_id],
        )
        for rows in by_record(unit.rows)
    )
    commit = UnitCommit(
        name=name,
        fingerprint=fingerprint,
        done=done,
        failed=tuple(_failed_entry(record, record_fingerprints) for record in failed),
        files=tuple(unit.files),
        chunks=len(unit.rows),
        samples=sum(record.samples for record in done),
        sample_rate=unit.layout.sample_rate,
    )
    store.create(commit_path(name), dump_commit(commit))
    return commit


def _failed_entry(record: FailedRecord, fingerprints: Mapping[str, str]) -> FailedInUnit:
    return FailedInUnit(fingerprint=fingerprints.get(record.id, ""), record=FailedRecord(**clean(record)))
