"""Token Parquet: one row a chunk, an explicit schema, checksums on every page, bytes that repeat."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bark_model.axes import CoarseCodes, FineCodes, SemanticTokens

_TOKENS = pa.list_(pa.int16())
_CODES = pa.list_(_TOKENS)

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # the chunk's id, which its random keys are made of
        ("record_id", pa.string()),  # the input record's id, exactly as given
        ("document", pa.string()),  # the book or file it is part of, if the input says so
        ("chapter", pa.string()),  # the chapter's title, if there are chapters
        ("index", pa.int64()),  # the record's place in its document, from the input
        ("text", pa.string()),  # what was spoken: this chunk's part of the record's text
        ("language", pa.string()),  # one of Bark's 13 codes, such as en
        ("voice", pa.string()),  # a preset's name or an .npz; null for none
        ("voice_hash", pa.string()),  # sha256 of the voice's arrays
        ("seed", pa.int64()),  # the record's or the job's
        ("attempt", pa.int32()),  # 0, or the number of the quality retry that made this row
        ("semantic", _TOKENS),  # [T] at 49.9 Hz, 0..9999
        ("coarse", _CODES),  # [2][T] at 75 Hz, 0..1023
        ("fine", _CODES),  # [8][T] at 75 Hz, 0..1023
        ("num_frames", pa.int32()),  # T of the codes
        ("num_samples", pa.int64()),  # samples of this chunk
        ("sample_rate", pa.int32()),  # Hz
        ("duration_s", pa.float64()),  # num_samples / sample_rate
        ("stop_reason", pa.string()),  # eos, min_eos_p, max_duration or cap
        ("audio_path", pa.string()),  # the record's audio below the output: its own file, or the Parquet it is in
        ("audio_sha256", pa.string()),  # of the record's whole PCM: 16-bit little-endian samples before encoding
        ("peak_dbfs", pa.float64()),  # this chunk's largest sample; -120 is silence
        ("rms_dbfs", pa.float64()),  # this chunk's mean level; -120 is silence
        ("model", pa.string()),  # the checkpoint's name
        ("model_sha256", pa.string()),  # of its weights
        ("dtype", pa.string()),  # float32, bfloat16 or float16
        ("slots", pa.int32()),  # rows of the compiled batch that made it
        ("sampling", pa.string()),  # settings as JSON
        ("source", pa.string()),  # the input shard
        ("source_start", pa.int64()),  # characters of the record's text where this chunk starts
        ("source_end", pa.int64()),  # and ends
    ]
)


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """One row: a field a column, None where a stage did not run. The commit measures and names the audio."""

    id: str
    record_id: str
    document: str | None = None
    chapter: str | None = None
    index: int | None = None
    text: str | None = None
    language: str | None = None
    voice: str | None = None
    voice_hash: str | None = None
    seed: int = 0
    attempt: int = 0
    semantic: SemanticTokens | None = None
    coarse: CoarseCodes | None = None
    fine: FineCodes | None = None
    num_frames: int | None = None
    num_samples: int | None = None
    sample_rate: int | None = None
    duration_s: float | None = None
    stop_reason: str | None = None
    audio_path: str | None = None
    audio_sha256: str | None = None
    peak_dbfs: float | None = None
    rms_dbfs: float | None = None
    model: str | None = None
    model_sha256: str | None = None
    dtype: str | None = None
    slots: int | None = None
    sampling: str | None = None
    source: str | None = None
    source_start: int | None = None
    source_end: int | None = None


_COLUMNS = [field.name for field in fields(TokenRow)]
_ARRAYS = ("semantic", "coarse", "fine")


def write_tokens(rows: Sequence[TokenRow]) -> bytes:
    """The Parquet file of the rows, the same bytes every time. ValueError for a token that int16 cannot hold."""
    columns = []
    for field in SCHEMA:
        values = [getattr(row, field.name) for row in rows]
        if field.name in _ARRAYS:
            values = [_lists(row.id, field.name, value) for row, value in zip(rows, values, strict=True)]
        columns.append(pa.array(values, field.type))
    return parquet_bytes(pa.Table.from_arrays(columns, schema=SCHEMA))


def _lists(row_id: str, name: str, tokens: np.ndarray | None) -> Any:
    """[T] -> array, [K, T] -> list of arrays, as Arrow takes them without looking at single numbers."""
    if tokens is None:
        return None
    tokens = np.asarray(tokens)
    limits = np.iinfo(np.int16)
    if tokens.size and not (limits.min <= tokens.min() and tokens.max() <= limits.max):
        raise ValueError(
            f"row {row_id!r} has {name} tokens from {tokens.min()} to {tokens.max()}: int16 cannot hold them"
        )
    tokens = tokens.astype(np.int16)
    return tokens if tokens.ndim == 1 else list(tokens)


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file: zstd, a checksum a page."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def open_parquet(file: BinaryIO) -> pq.ParquetFile:
    """A Parquet file whose pages are checked against their checksums as they are read."""
    return pq.ParquetFile(file, page_checksum_verification=True)


def read_tokens(file: BinaryIO, columns: Sequence[str] | None = None, *, batch_rows: int = 256) -> Iterator[TokenRow]:
    """The rows of a token file, a few at a time; other columns than those asked for are None (ids are always read)."""
    wanted = None if columns is None else list(dict.fromkeys(["id", "record_id", *columns]))
    for batch in open_parquet(file).iter_batches(batch_size=batch_rows, columns=wanted):
        for values in batch.to_pylist():
            for name in _ARRAYS:
                if values.get(name) is not None:
                    values[name] = np.array(values[name], np.int32)
            yield TokenRow(**{name: value for name, value in values.items() if name in _COLUMNS and value is not None})


def by_record(rows: Iterable[TokenRow]) -> Iterator[tuple[TokenRow, ...]]:
    """Rows that lie together because they are one record's, as one tuple."""
    group: list[TokenRow] = []
    for row in rows:
        if group and row.record_id != group[0].record_id:
            yield tuple(group)
            group = []
        group.append(row)
    if group:
        yield tuple(group)


def record_text(rows: Sequence[TokenRow]) -> str:
    """The chunks' texts put together again, with a space where the source had something between them."""
    text = ""
    for before, row in zip((None, *rows), rows, strict=False):
        apart = before is not None and before.source_end != row.source_start
        text += (" " if apart else "") + (row.text or "")
    return text
