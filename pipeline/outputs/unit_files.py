"""The files of one unit as they are written: audio record by record, then what its rows come to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from bark_model.axes import Waveform
from pipeline.outputs.audio import BadAudio, encode, join_chunks, levels_dbfs, pcm16
from pipeline.outputs.audio_parquet import AudioRow, write_audio
from pipeline.outputs.failed import excerpt_line
from pipeline.outputs.names import audio_file_path, content_path, safe_name
from pipeline.outputs.tokens import TokenRow, record_text
from pipeline.records import FailedRecord
from pipeline.store import Store
from pipeline.store.base import content_sha256

FileKind = Literal["tokens", "audio", "audio_parquet", "failed"]


class FinishedRecord(Protocol):
    """A record that was made: its rows, one a chunk, and their waveforms (none when the run stops before audio)."""

    @property
    def rows(self) -> tuple[TokenRow, ...]: ...

    @property
    def waveforms(self) -> tuple[Waveform, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a run's audio is stored. `by_bucket` gives each bucket of records a folder of its own below `audio/`: for
    runs of so many that one folder would be slow to list."""

    audio_format: str = "flac"
    where: Literal["files", "parquet"] = "files"
    silence_s: float = 0.25
    sample_rate: int = 24000
    by_bucket: bool = False


@dataclass(frozen=True, kw_only=True)
class CommittedFile:
    """A file of a unit: where it lies in the output, and what it must hold."""

    kind: FileKind
    path: str
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A record's encoded audio under its name, until it is written."""

    row: AudioRow
    path: str


class UnitFiles:
    """What a unit of a bucket has written so far, and its rows."""

    def __init__(self, store: Store, layout: Layout, bucket: int):
        self.store, self.layout = store, layout
        self.folder = f"{bucket:06d}" if layout.by_bucket else ""
        self.rows: list[TokenRow] = []
        self.files: list[CommittedFile] = []
        self.samples: dict[str, int] = {}
        self.audio_rows: list[AudioRow] = []

    def prepare(self, finished: Iterable[FinishedRecord], failed: list[FailedRecord]) -> Iterator[Prepared]:
        """Takes the records' rows, and gives their audio (where there is any) encoded."""
        for record in finished:
            record_id = record.rows[0].record_id
            self.samples[record_id] = 0
            if not record.waveforms:
                self.rows += record.rows
                continue
            try:
                yield self._encode(record)
            except BadAudio as error:
                del self.samples[record_id]
                failed.append(_audio_failure(record.rows[0], error))

    def _encode(self, record: FinishedRecord) -> Prepared:
        layout = self.layout
        measured = [
            _measured(row, waveform, layout.sample_rate)
            for row, waveform in zip(record.rows, record.waveforms, strict=True)
        ]
        joined = join_chunks(record.waveforms, silence_s=layout.silence_s, sample_rate=layout.sample_rate)
        sound = encode(pcm16(joined), sample_rate=layout.sample_rate, audio_format=layout.audio_format)
        record_id = record.rows[0].record_id
        path = audio_file_path(record_id, sound.pcm_sha256, layout.audio_format, self.folder)
        self.samples[record_id] = sound.num_samples
        self.rows += [replace(row, audio_path=path, audio_sha256=sound.pcm_sha256) for row in measured]
        row = AudioRow(
            id=record_id,
            text=record_text(record.rows),
            language=record.rows[0].language,
            voice=record.rows[0].voice,
            data=sound.data,
            path=f"{safe_name(record_id)}.{layout.audio_format}",
            duration_s=sound.num_samples / layout.sample_rate,
        )
        return Prepared(row=row, path=path)

    def write_file(self, prepared: Prepared) -> CommittedFile:
        self.store.create(prepared.path, prepared.row.data)
        return _committed("audio", prepared.path, prepared.row.data, 1)

    def write_parquet(self) -> None:
        """One Parquet file of all audio kept; the token rows then name it."""
        if not self.audio_rows:
            return
        data = write_audio(self.audio_rows, sample_rate=self.layout.sample_rate)
        file = self.write_content("audio_parquet", "audio", "parquet", data, len(self.audio_rows))
        inside = {row.id for row in self.audio_rows}
        self.rows = [replace(row, audio_path=file.path) if row.record_id in inside else row for row in self.rows]

    def write_content(self, kind: FileKind, folder: str, suffix: str, data: bytes, rows: int) -> CommittedFile:
        """A file named by its content."""
        file = _committed(kind, content_path(folder, content_sha256(data), suffix), data, rows)
        self.store.create(file.path, data)
        self.files.append(file)
        return file


def _committed(kind: FileKind, path: str, data: bytes, rows: int) -> CommittedFile:
    return CommittedFile(kind=kind, path=path, sha256=content_sha256(data), bytes=len(data), rows=rows)


def _measured(row: TokenRow, waveform: Waveform, sample_rate: int) -> TokenRow:
    pcm = pcm16(waveform)
    peak_dbfs, rms_dbfs = levels_dbfs(pcm)
    return replace(
        row,
        num_samples=len(pcm),
        sample_rate=sample_rate,
        duration_s=len(pcm) / sample_rate,
        peak_dbfs=peak_dbfs,
        rms_dbfs=rms_dbfs,
    )


def _audio_failure(row: TokenRow, error: BadAudio) -> FailedRecord:
    return FailedRecord(
        id=row.record_id,
        source=row.source or "",
        stage="audio",
        error=type(error).__name__,
        message=excerpt_line(str(error)),
    )
