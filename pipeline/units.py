"""Deals records into units of work: by identity, never by arrival, so that every run and every resume cuts the same.

A bucket is a slice of all ids by digest; a unit is a run of a bucket's records in digest order that holds about
`unit_audio_s` seconds of audio. A unit is committed, retried and resumed as a whole.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.outputs.tokens import TokenRow
from pipeline.records import Chunk, FailedRecord, Record, id_digest
from pipeline.sources.shards import Shard

DRAWN = ("NoSpeech",)
"""Failures that the same random keys would only repeat."""

UNIT_RECORDS = 10_000
"""Most records of one unit: bounds its memory when they are tiny or failed."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A record that can be synthesised: its chunks, an estimate of its length, and what its result depends on.

    `fingerprint` digests everything of the record that changes its result. A run that starts from tokens has the
    stored row of each chunk in `stored`; one that starts from audio has the file in `recording`. `attempts` counts
    the runs that tried it; `attempt` changes its random keys. `failed` is set when it failed before and is not to be
    tried again.
    """

    record: Record
    chunks: tuple[Chunk, ...]
    audio_s: float
    fingerprint: str
    stored: tuple[TokenRow, ...] = ()
    recording: Shard | None = None
    attempts: int = 1
    attempt: int = 0
    failed: FailedRecord | None = None

    @property
    def id(self) -> str:
        return self.record.id


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The atom of commit and retry: records to make or to list as failed, or rows `carried` from an earlier commit
    (its name and the ids) that holds others which changed."""

    name: str
    records: tuple[Ready | FailedRecord, ...] = ()
    carried: tuple[str, tuple[str, ...]] | None = None

    @property
    def ready(self) -> tuple[Ready, ...]:
        """The records to synthesise."""
        return tuple(one for one in self.records if isinstance(one, Ready) and one.failed is None)

    @property
    def failed(self) -> tuple[FailedRecord, ...]:
        """The records that are known to fail."""
        known = (one if isinstance(one, FailedRecord) else one.failed for one in self.records)
        return tuple(one for one in known if one is not None)

    @property
    def fingerprints(self) -> dict[str, str]:
        """What each record's result depends on, by id; not of those that could not be read."""
        return {one.id: one.fingerprint for one in self.records if isinstance(one, Ready)}


@dataclass(frozen=True, kw_only=True)
class Done:
    """One record of an earlier generation's commit: what it was made of, and how it failed if it did."""

    id: str
    fingerprint: str
    commit: str
    failed: FailedRecord | None = None


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """A bucket's units, and the earlier commits that stay.

    `records` counts the ids that came in, `done` those of them that the kept commits hold, `removed` the ids
    done in earlier commits that came in no more; their rows stay.
    """

    units: tuple[Unit, ...]
    kept: tuple[str, ...]
    records: int
    done: int
    removed: int


def bucket_of(record_id: str, buckets: int) -> int:
    """The bucket of an id: the same on every machine and for every order of arrival."""
    return int.from_bytes(id_digest(record_id)[:8], "big") % buckets


def unit_name(generation: int, bucket: int, number: int) -> str:
    """The unit's name, which is also the path of its commit record below `_run/commits/`."""
    return f"{generation:04d}/{bucket:06d}-{number:05d}"


def deal(
    found: Iterable[Ready | FailedRecord],
    done: Sequence[Done],
    *,
    generation: int,
    bucket: int,
    unit_audio_s: float,
    retry_failed: bool = False,
) -> Dealt:
    """A bucket's records and its earlier results -> its units. Pure, and blind to the order of both.

    A commit whose records are all as they were is kept. One that holds a changed record is dropped, and its other
    rows are carried into new units. Failed records are listed anew: as they were, or to be tried again when they
    changed or `retry_failed` says so.
    """
    records = _resolve_duplicates(found)
    earlier = {entry.id: entry for entry in sorted(done, key=lambda entry: entry.commit)}  # the latest commit wins
    kept, carried = _keep_or_carry(records, earlier, done)
    todo = []
    for record in sorted(records.values(), key=lambda record: (id_digest(record.id), record.id)):
        before = earlier.get(record.id)
        if before is None or not _unchanged(record, before):
            todo.append(record)
        elif before.failed is not None and isinstance(record, Ready):
            todo.append(_retried(record, before.failed) if retry_failed else replace(record, failed=before.failed))
    parts = [(tuple(part), None) for part in _cut(todo, unit_audio_s)]
    parts += [((), (commit, ids)) for commit, ids in sorted(carried.items())]
    units = [
        Unit(name=unit_name(generation, bucket, number), records=part, carried=rows)
        for number, (part, rows) in enumerate(parts)
    ]
    return Dealt(
        units=tuple(units),
        kept=kept,
        records=len(records),
        done=sum(entry.commit in kept and entry.id in records for entry in earlier.values() if entry.failed is None),
        removed=sum(entry.id not in records for entry in earlier.values() if entry.failed is None),
    )


def _retried(record: Ready, before: FailedRecord) -> Ready:
    """The record, to be tried once more: with new random keys where the old ones gave no speech."""
    attempt = before.attempts if before.error in DRAWN else 0
    return replace(record, attempts=before.attempts + 1, attempt=attempt)


def _resolve_duplicates(found: Iterable[Ready | FailedRecord]) -> dict[str, Ready | FailedRecord]:
    """One item an id: the first in its source of equal ones, or a DuplicateId failure where they differ."""
    same_id: dict[str, list[Ready | FailedRecord]] = {}
    for item in found:
        same_id.setdefault(item.id, []).append(item)
    return {record_id: _one_of(items) for record_id, items in same_id.items()}


def _one_of(items: list[Ready | FailedRecord]) -> Ready | FailedRecord:
    items = sorted(items, key=_place)
    if len({item.fingerprint if isinstance(item, Ready) else item.error for item in items}) == 1:
        return items[0]
    places = sorted({_place(item)[0] for item in items})[:2]
    return FailedRecord(
        id=items[0].id,
        source=places[0],
        stage="read",
        error="DuplicateId",
        message=f"{len(items)} different records share this id, in {' and '.join(places)}: make ids unique",
    )


def _place(item: Ready | FailedRecord) -> tuple:
    if isinstance(item, Ready):
        return item.record.source, item.record.line, item.fingerprint
    return item.source, 0, item.message


def _unchanged(record: Ready | FailedRecord, before: Done) -> bool:
    return isinstance(record, Ready) and record.fingerprint == before.fingerprint


def _keep_or_carry(
    records: Mapping[str, Ready | FailedRecord], earlier: Mapping[str, Done], done: Sequence[Done]
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The commits whose every result is still current (or its record removed), and what to carry from the others."""
    current: dict[str, list[str]] = {}
    spoiled = set()
    for entry in done:
        if entry.failed is not None:
            continue
        if earlier[entry.id] is entry and (entry.id not in records or _unchanged(records[entry.id], entry)):
            current.setdefault(entry.commit, []).append(entry.id)
        else:
            spoiled.add(entry.commit)
    kept = tuple(sorted(commit for commit in current if commit not in spoiled))
    return kept, {commit: tuple(sorted(current[commit])) for commit in current if commit in spoiled}


def _cut(items: list[Ready | FailedRecord], unit_audio_s: float) -> Iterator[list[Ready | FailedRecord]]:
    """Runs of items of at most `unit_audio_s` each (a longer record stands alone) and at most UNIT_RECORDS."""
    part, audio_s = [], 0.0
    for item in items:
        length = item.audio_s if isinstance(item, Ready) and item.failed is None else 0.0
        if part and (audio_s + length > unit_audio_s or len(part) >= UNIT_RECORDS):
            yield part
            part, audio_s = [], 0.0
        part.append(item)
        audio_s += length
    if part:
        yield part
