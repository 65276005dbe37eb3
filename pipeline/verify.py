"""Checks a finished output from its manifest alone: every checksum, every count, every id, every sample of audio."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.commit import UnitCommit
from pipeline.manifest import CARD, MANIFEST, Ids, Manifest, ManifestShard, load_manifest, read_shard_commit
from pipeline.outputs.audio import LOSSLESS, BadAudio, decode, pcm_sha256
from pipeline.outputs.audio_parquet import read_audio
from pipeline.outputs.failed import read_failed
from pipeline.outputs.names import is_ours
from pipeline.outputs.tokens import TokenRow, by_record, read_tokens
from pipeline.outputs.unit_files import CommittedFile
from pipeline.store import Store, StoreError

LISTED = 1000
"""Most problems, and most files of a kind, that a report lists; all are counted."""
SHOWN = 5


class Listing(list[str]):
    """The first of many, and how many there are in all."""

    total = 0

    def add(self, one: str) -> None:
        self.total += 1
        if len(self) < LISTED:
            self.append(one)

    def short(self) -> str:
        """`3 files: a, b, c` or `70 files: a, b, c, d, e and 65 more`."""
        more = f" and {self.total - SHOWN} more" if self.total > SHOWN else ""
        return f"{self.total} files: {', '.join(self[:SHOWN])}{more}"


@dataclass
class Report:
    """What verify found. `strays` are a run's files that no manifest names, leftovers of killed or superseded
    attempts; `foreign` are files that no run wrote."""

    shards: int = 0
    done: int = 0
    failed: int = 0
    chunks: int = 0
    files: int = 0
    bytes: int = 0
    audio_s: float = 0.0
    problems: Listing = field(default_factory=Listing)
    strays: Listing = field(default_factory=Listing)
    foreign: Listing = field(default_factory=Listing)

    @property
    def is_whole(self) -> bool:
        return self.problems.total == 0


@dataclass
class _ShardCheck:
    """One unit's part of the report. `sounds` maps a record's id or audio file to (PCM sha256 or None, samples)."""

    files: list[CommittedFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    sounds: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    rows: list[TokenRow] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def verify(store: Store) -> Report:
    """Reads every byte of a finished run. NotFound or Corrupt when there is no manifest to go by."""
    manifest = load_manifest(store)
    report, ids, named = Report(), Ids(), {MANIFEST, CARD}
    for shard, check in zip(
        manifest.shards, store.each(lambda shard: _check_shard(store, manifest, shard), manifest.shards), strict=True
    ):
        report.shards += 1
        report.done += shard.done
        report.failed += shard.failed
        report.chunks += shard.chunks
        report.audio_s += shard.samples / manifest.sample_rate
        report.files += len(check.files)
        report.bytes += sum(file.bytes for file in check.files)
        named.update(file.path for file in check.files)
        for problem in check.problems:
            report.problems.add(f"unit {shard.unit}: {problem}")
        for record_id in check.ids:
            ids.add(record_id)
    if repeated := ids.repeated():
        report.problems.add(f"{repeated} ids are in more than one unit")
    _check_totals(manifest, report)
    for path in (entry.path for entry in store.list()):
        if path not in named and not path.startswith("_run/"):
            (report.strays if is_ours(path) else report.foreign).add(path)
    return report


def _check_totals(manifest: Manifest, report: Report) -> None:
    for name in ("done", "failed", "chunks", "bytes"):
        listed, found = getattr(manifest, name), getattr(report, name)
        if listed != found:
            report.problems.add(f"the manifest says {listed} {name} in all, its units come to {found}")
    if manifest.records != manifest.done + manifest.failed:
        report.problems.add(f"{manifest.records} records are not {manifest.done} done and {manifest.failed} failed")


def _check_shard(store: Store, manifest: Manifest, shard: ManifestShard) -> _ShardCheck:
    check = _ShardCheck()
    try:
        commit = read_shard_commit(store, shard)
    except StoreError as error:
        check.problems.append(str(error))
        return check
    superseded = commit.generation < manifest.generation  # its failed records were listed anew
    check.files = [file for file in commit.files if not (superseded and file.kind == "failed")]
    check.problems += _commit_problems(manifest, shard, commit, check.files)
    for file in check.files:
        try:
            _check_file(store, file, check)
        except (StoreError, BadAudio) as error:
            check.problems.append(str(error) if file.path in str(error) else f"{file.path}: {error}")
        except (OSError, pa.ArrowException, ValueError, TypeError, KeyError) as error:
            check.problems.append(f"{file.path} cannot be read: {str(error).splitlines()[0][:200]}")
    expected_failed = [] if superseded else [entry.record.id for entry in commit.failed]
    check.problems += _record_problems(commit, expected_failed, check)
    check.ids = [record.id for record in commit.done] + expected_failed
    check.rows, check.sounds = [], {}  # a run may have very many: only the counts are kept
    return check


def _commit_problems(
    manifest: Manifest, shard: ManifestShard, commit: UnitCommit, files: list[CommittedFile]
) -> Iterator[str]:
    """Where the commit record and the manifest differ."""
    if commit.fingerprint != manifest.fingerprint:
        yield f"has the fingerprint {commit.fingerprint[:16]}, the manifest {manifest.fingerprint[:16]}"
    if tuple(file for file in files if file.kind != "audio") != shard.files:
        yield "lists other files than the manifest"
    pairs = {
        "done": (len(commit.done), shard.done),
        "chunks": (commit.chunks, shard.chunks),
        "samples": (commit.samples, shard.samples),
    }
    for name, (found, listed) in pairs.items():
        if found != listed:
            yield f"has {found} {name}, the manifest says {listed}"


def _check_file(store: Store, file: CommittedFile, check: _ShardCheck) -> None:
    """Reads a file against its checksum, and what is in it against the number of rows."""
    data = store.read(file.path, sha256=file.sha256)
    if file.kind == "audio":
        check.sounds[file.path] = _sound(file.path, data)
        return
    if file.kind == "failed":
        found = [record.id for record in read_failed(data.splitlines())]
        check.failed += found
    elif file.kind == "tokens":
        found = list(read_tokens(io.BytesIO(data)))
        check.rows += found
    else:
        found = []
        for row in read_audio(io.BytesIO(data)):
            found.append(row.id)
            check.sounds[row.id] = _sound(row.path, row.data)
    if len(found) != file.rows:
        check.problems.append(f"{file.path} has {len(found)} rows, its record says {file.rows}")


def _sound(path: str, data: bytes) -> tuple[str | None, int]:
    """The fingerprint of an audio file's samples (None where encoding loses some) and how many there are."""
    pcm, _ = decode(data)
    return pcm_sha256(pcm) if path.endswith(LOSSLESS) else None, len(pcm)


def _record_problems(commit: UnitCommit, expected_failed: list[str], check: _ShardCheck) -> Iterator[str]:
    """Where the rows, the audio and the failed lines are not what the commit record says."""
    if sorted(check.failed) != sorted(expected_failed):
        yield f"has {len(check.failed)} failed lines, which are not its {len(expected_failed)} failed records"
    done = {record.id: record for record in commit.done}
    seen = set()
    for rows in by_record(check.rows):
        record_id = rows[0].record_id
        if record_id not in done or record_id in seen:
            yield f"record {record_id[:80]!r} has rows {'twice' if record_id in seen else 'but is not listed as done'}"
            continue
        seen.add(record_id)
        if len(rows) != done[record_id].chunks:
            yield f"record {record_id[:80]!r} has {len(rows)} rows, must have {done[record_id].chunks}"
        yield from _audio_problems(record_id, rows, done[record_id].samples, check)
    if missing := len(done) - len(seen):
        yield f"{missing} records are listed as done but have no rows"


def _audio_problems(record_id: str, rows: tuple[TokenRow, ...], samples: int, check: _ShardCheck) -> Iterator[str]:
    path, sha256 = rows[0].audio_path, rows[0].audio_sha256
    if path is None:
        return
    sound = check.sounds.get(path) or check.sounds.get(record_id)
    if sound is None:
        yield f"record {record_id[:80]!r} has no audio that can be read"
        return
    found_sha256, found_samples = sound
    if any((row.audio_path, row.audio_sha256) != (path, sha256) for row in rows):
        yield f"record {record_id[:80]!r} has rows that name different audio"
    if found_sha256 is not None and (found_sha256, found_samples) != (sha256, samples):
        yield f"record {record_id[:80]!r} has audio whose samples are not those of its row"
