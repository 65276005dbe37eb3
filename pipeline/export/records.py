"""A finished run's records with their audio, one at a time, in the manifest's order."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.commit import UnitCommit, read_file_rows
from pipeline.manifest import Manifest, read_shard_commit
from pipeline.outputs.audio import decode
from pipeline.outputs.audio_parquet import read_audio
from pipeline.outputs.names import safe_name
from pipeline.outputs.tokens import TokenRow, by_record, record_text
from pipeline.store import Store

_COLUMNS = ("text", "language", "voice", "sample_rate", "audio_path", "source_start", "source_end")


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """A record as other tools want it. `name` is safe as a file name and free of dots; `data` the encoded audio."""

    id: str
    name: str
    text: str
    language: str | None
    voice: str | None
    sample_rate: int
    duration_s: float
    audio_format: str
    data: bytes

    @property
    def line(self) -> str:
        """The text as one line."""
        return " ".join(self.text.split())


def read_records(store: Store, manifest: Manifest) -> Iterator[ExportRecord]:
    """Every record that has audio. Corrupt when a file is not what its checksum says."""
    for shard in manifest.shards:
        yield from _unit_records(store, read_shard_commit(store, shard))


def _unit_records(store: Store, commit: UnitCommit) -> Iterator[ExportRecord]:
    token_files = [file for file in commit.files if file.kind == "tokens"]
    rows = {
        group[0].record_id: group for file in token_files for group in by_record(read_file_rows(store, file, _COLUMNS))
    }
    samples = {record.id: record.samples for record in commit.done}
    for record_id, path, data in _unit_audio(store, commit, rows):
        yield _record(rows[record_id], path, data, samples[record_id] / commit.sample_rate)


def _unit_audio(
    store: Store, commit: UnitCommit, rows: dict[str, tuple[TokenRow, ...]]
) -> Iterator[tuple[str, str, bytes]]:
    """(record id, file name, encoded audio) of a unit, checked against the commit's checksums."""
    owners = {group[0].audio_path: record_id for record_id, group in rows.items()}
    files = [file for file in commit.files if file.kind == "audio"]
    read = store.each(lambda file: (file, store.read(file.path, sha256=file.sha256)), files)
    for file, data in read:
        yield owners[file.path], file.path, data
    for file in commit.files:
        if file.kind == "audio_parquet":
            for row in read_audio(io.BytesIO(store.read(file.path, sha256=file.sha256))):
                yield row.id, row.path, row.data


def _record(rows: tuple[TokenRow, ...], path: str, data: bytes, duration_s: float) -> ExportRecord:
    first = rows[0]
    return ExportRecord(
        id=first.record_id,
        name=safe_name(first.record_id),
        text=record_text(rows),
        language=first.language,
        voice=first.voice,
        sample_rate=first.sample_rate or decode(data)[1],
        duration_s=duration_s,
        audio_format=path.rpartition(".")[2],
        data=data,
    )
