"""Stored tokens, for `job: reprocess`: a finished run's folder or token Parquet, checked before any of it is used."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.errors import excerpt
from pipeline.manifest import MANIFEST, load_manifest
from pipeline.outputs.tokens import SCHEMA, TokenRow, by_record, record_text
from pipeline.records import FailedRecord, Record, line_id
from pipeline.sources.fields import RowError, failed
from pipeline.sources.opening import open_seekable
from pipeline.sources.parquet import cell_value, numbered_batches, opened
from pipeline.sources.shards import Shard, SourceError, list_shards, split_format
from pipeline.store import NotFound, open_store

TOKEN_FORMATS = (".parquet",)
CHUNKS_LIMIT = 10_000
"""Chunks of one record, which are held in memory together: over a day of speech."""

Stage = Literal["semantic", "coarse", "fine"]
_STAGES: tuple[Stage, ...] = ("semantic", "coarse", "fine")
_BATCH_ROWS = 16
# What later steps measure or make anew is not taken over.
_MEASURED = {
    "num_frames",
    "num_samples",
    "sample_rate",
    "duration_s",
    "audio_path",
    "audio_sha256",
    "peak_dbfs",
    "rms_dbfs",
}
_PLAIN = [field.name for field in fields(TokenRow) if field.name not in (*_STAGES, *_MEASURED)]


@dataclass(frozen=True, kw_only=True)
class TokenLimits:
    """What the checkpoint that will read the tokens allows: sizes of vocabularies, codebooks and lengths in tokens."""

    semantic_vocab_size: int
    codebook_size: int
    n_coarse_codebooks: int
    n_fine_codebooks: int
    max_semantic_tokens: int
    max_frames: int
    model_sha256: str | None = None
    """The model whose tokens these must be, where a row says what made it; None for any."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredRecord:
    """A record and its chunks in order, each a token row with its tokens up to the stage that was asked for."""

    record: Record
    chunks: tuple[TokenRow, ...]


def list_token_shards(inputs: str) -> tuple[Shard, ...]:
    """The token files of a finished run's folder, as its manifest names them, or of a path or glob of Parquet."""
    if inputs.lower().endswith(TOKEN_FORMATS) or any(sign in inputs for sign in "*?["):
        return list_shards(inputs, TOKEN_FORMATS)
    try:
        manifest = load_manifest(open_store(inputs))
    except NotFound as error:
        raise SourceError(
            f"input {excerpt(inputs, 200)} has no {MANIFEST}: name a finished run or Parquet files"
        ) from error
    files = [file for shard in manifest.shards for file in shard.files if file.kind == "tokens"]
    folder = inputs.rstrip("/")
    return tuple(Shard(f"{folder}/{file.path}", file.bytes, f"sha256:{file.sha256}", file.path) for file in files)


def read_tokens(shard: Shard, start: Stage, limits: TokenLimits) -> Iterator[StoredRecord | FailedRecord]:
    """The records of a token file, with the tokens of `start` and the stages before it.

    Rows of one record lie together, as runs write them; without `record_id` a row is a record. A record with a bad
    row fails as BadTokens with that row's stage, or as OtherModel. SourceError for what concerns the file, as
    `read_shard`.
    """
    _, compression = split_format(shard.name, TOKEN_FORMATS)
    faults: dict[str, FailedRecord] = {}
    with open_seekable(shard, compression) as stream, opened(stream, shard.name) as file:
        wanted = _STAGES[: _STAGES.index(start) + 1]
        columns = _columns(file.schema_arrow, shard.name, wanted, start)
        rows = (
            (number + row, _row(batch, row, shard.name, number + row, start, limits, faults))
            for number, batch in numbered_batches(file, shard.name, columns, _BATCH_ROWS)
            for row in range(batch.num_rows)
        )
        for group in by_record(_limited(rows, faults, shard.name)):
            fault = faults.pop(group[0].record_id, None)
            yield fault or _stored(group, shard.name)


def _columns(schema: pa.Schema, source: str, wanted: tuple[Stage, ...], start: Stage) -> list[str]:
    """The columns to read, with their types checked: whole numbers of any width, lists of any kind."""
    if start not in schema.names:
        raise SourceError(f"{source}: columns {excerpt(schema.names, 120)} have no {start!r}: start from another stage")
    columns = [name for name in (*_PLAIN, *wanted) if name in schema.names]
    for name in columns:
        found, kind = schema.field(name).type, _kind(SCHEMA.field(name).type)
        if _kind(found) not in (kind, "null"):
            raise SourceError(f"{source}: column {name!r} is {found}, must be {kind}")
    return columns


def _kind(found: pa.DataType) -> str:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found):
        return f"list of {_kind(found.value_type)}"
    if pa.types.is_string(found) or pa.types.is_large_string(found):
        return "string"
    return "integer" if pa.types.is_integer(found) else str(found)


def _row(
    batch: pa.RecordBatch,
    row: int,
    source: str,
    number: int,
    start: Stage,
    limits: TokenLimits,
    faults: dict[str, FailedRecord],
) -> TokenRow:
    """One row; when it is bad, its record's fault is noted and the row comes without tokens."""
    values: dict[str, Any] = {"id": line_id(source, number)}
    try:
        values |= _plain_values(batch, row)
        values.setdefault("record_id", values["id"])
        _check_model(values.get("model_sha256"), limits.model_sha256)
        for stage in _STAGES:
            if stage in batch.schema.names:
                values[stage] = _tokens(stage, batch.column(stage)[row], limits)
        if values[start] is None:
            raise RowError("BadTokens", f"{start} tokens are missing: start from another stage", stage=start)
    except RowError as fault:
        values.setdefault("record_id", values["id"])
        faults.setdefault(values["record_id"], failed(source, number, fault, values["record_id"]))
    return TokenRow(**values)


def _check_model(made_by: str | None, wanted: str | None) -> None:
    if made_by is not None and wanted is not None and made_by != wanted:
        raise RowError(
            "OtherModel",
            f"tokens are of the model {excerpt(made_by[:12])}, the checkpoint is {excerpt(wanted[:12])}: start with "
            "--force to use them all the same",
        )


def _plain_values(batch: pa.RecordBatch, row: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in _PLAIN:
        if name not in batch.schema.names:
            continue
        try:
            value = cell_value(batch.column(name)[row])
        except UnicodeDecodeError as error:
            raise RowError("BadEncoding", f"{name} is not UTF-8") from error
        limit = 2**31 if SCHEMA.field(name).type == pa.int32() else 2**63
        if isinstance(value, int) and not 0 <= value < limit:
            raise RowError("BadField", f"{name} is {value}, must be a whole number from 0 to {limit - 1}")
        if value is not None:
            values[name] = value
    return values


def _tokens(stage: Stage, cell: pa.Scalar, limits: TokenLimits) -> np.ndarray | None:
    """int32 [T] or [K, T], every value within the checkpoint's limits; None for a null."""
    if not cell.is_valid:
        return None
    if stage == "semantic":
        return _numbers(stage, cell.values, limits.semantic_vocab_size, limits.max_semantic_tokens)
    books = limits.n_coarse_codebooks if stage == "coarse" else limits.n_fine_codebooks
    if len(cell) != books:
        raise RowError("BadTokens", f"{stage} has {len(cell)} codebooks, must have {books}", stage=stage)
    if cell.values.null_count:
        raise RowError("BadTokens", f"{stage} has a null codebook", stage=stage)
    rows = [_numbers(stage, row.values, limits.codebook_size, limits.max_frames) for row in cell.values]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise RowError(
            "BadTokens", f"{stage} is ragged: codebooks of {lengths[0]} and {lengths[-1]} frames", stage=stage
        )
    return np.stack(rows)


def _numbers(stage: Stage, values: pa.Array, classes: int, longest: int) -> np.ndarray:
    if not 1 <= len(values) <= longest:
        raise RowError("BadTokens", f"{stage} has {len(values)} tokens, must have 1 to {longest}", stage=stage)
    if values.null_count:
        raise RowError("BadTokens", f"{stage} has a null among its tokens", stage=stage)
    numbers = values.to_numpy(zero_copy_only=False)
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise RowError("BadTokens", f"{stage} has the token {wrong}, must be 0 to {classes - 1}", stage=stage)
    return numbers.astype(np.int32)


def _limited(rows: Iterable[tuple[int, TokenRow]], faults: dict[str, FailedRecord], source: str) -> Iterator[TokenRow]:
    """The rows, without the tokens of those that could not all be held or whose record fails anyway."""
    current, count = None, 0
    for number, row in rows:
        count = count + 1 if row.record_id == current else 1
        current = row.record_id
        if count > CHUNKS_LIMIT:
            fault = RowError("BadTokens", f"record has over {CHUNKS_LIMIT} chunks: split it", stage="read")
            faults.setdefault(row.record_id, failed(source, number, fault, row.record_id))
            continue
        yield row if row.record_id not in faults else replace(row, semantic=None, coarse=None, fine=None)


def _stored(group: tuple[TokenRow, ...], source: str) -> StoredRecord | FailedRecord:
    first = group[0]
    starts = [row.source_start for row in group if row.source_start is not None]
    if starts != sorted(starts):
        fault = RowError("BadTokens", "chunks are not in the order of the text: sort the rows by source_start")
        return failed(source, 1, fault, first.record_id)
    return StoredRecord(
        record=Record(
            id=first.record_id,
            text=record_text(group),
            source=first.source or source,
            line=1,
            voice=first.voice,
            language=first.language,
            seed=first.seed,
            document=first.document,
            index=first.index,
        ),
        chunks=group,
    )
