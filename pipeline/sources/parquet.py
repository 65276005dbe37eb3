"""`.parquet`: a record a row, read in batches with page checksums verified where the file has them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import excerpt
from pipeline.records import FailedRecord, Record
from pipeline.sources.fields import COLUMNS, RowError, failed, record
from pipeline.sources.lines import LINE_LIMIT_BYTES
from pipeline.sources.shards import SourceError, one_line

ROW_GROUP_LIMIT_BYTES = 2 << 30
"""Uncompressed bytes of one row group. Pages are streamed, so an honest file needs far less memory than this."""

_BATCH_ROWS = 16  # few: a dictionary page may name one long string in every row of a batch
_FOOTER_LIMIT_BYTES = 64 << 20
_PAGE_BUFFER_BYTES = 1 << 20
_STRINGS = frozenset({"text", "voice", "language"})


def read(stream: BinaryIO, source: str) -> Iterator[Record | FailedRecord]:
    """The records of a Parquet file, lines being rows from 1; `source` is the shard's name.

    SourceError: no Parquet, truncated or damaged, a wrong column type, or a row group over the limit.
    """
    with opened(stream, source) as file:
        columns = [name for name in COLUMNS if name in file.schema_arrow.names]
        if "text" not in columns:
            raise SourceError(f"{source}: columns {excerpt(file.schema_arrow.names, 120)} have no 'text': name it")
        for name in columns:
            _check_type(source, name, file.schema_arrow.field(name).type)
        for number, batch in numbered_batches(file, source, columns, _BATCH_ROWS):
            for row in range(batch.num_rows):
                yield _record(batch, row, source, number + row)


@contextmanager
def opened(stream: BinaryIO, source: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose damage, wherever it shows, comes out as a SourceError."""
    try:
        yield _file(stream, source)
    # Arrow answers a damaged file with any of these, by where the damage lies.
    except (pa.ArrowException, OSError, EOFError, ValueError, KeyError, OverflowError) as error:
        raise SourceError(f"{source}: no whole Parquet file: {one_line(error)}") from error


def _file(stream: BinaryIO, source: str) -> pq.ParquetFile:
    file = pq.ParquetFile(
        stream,
        page_checksum_verification=True,
        pre_buffer=False,
        buffer_size=_PAGE_BUFFER_BYTES,  # streams a column's pages: 28 MB for a row group of 240 MB
        thrift_string_size_limit=_FOOTER_LIMIT_BYTES,
        thrift_container_size_limit=1_000_000,
    )
    names = file.schema_arrow.names
    for name in names:
        if names.count(name) > 1:
            raise SourceError(f"{source}: column {excerpt(name)} occurs twice: keep one")
    return file


def numbered_batches(
    file: pq.ParquetFile, source: str, columns: Sequence[str], rows: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(number of its first row from 1, batch of up to `rows` rows) of each row group; SourceError over the limit."""
    number = 1
    for group in range(file.num_row_groups):
        # Not the sum of our columns' sizes: pyarrow ends the process in `.column()` when a footer is damaged.
        held = file.metadata.row_group(group).total_byte_size
        if not 0 <= held <= ROW_GROUP_LIMIT_BYTES:
            raise SourceError(
                f"{source}: row group {group} holds {held >> 20} MiB, limit {ROW_GROUP_LIMIT_BYTES >> 20} MiB: "
                "write smaller row groups"
            )
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=list(columns), use_threads=False):
            yield number, batch
            number += batch.num_rows


def _check_type(source: str, name: str, found: pa.DataType) -> None:
    if pa.types.is_dictionary(found):
        found = found.value_type
    is_text = pa.types.is_string(found) or pa.types.is_large_string(found)
    is_whole = pa.types.is_integer(found)
    fits = is_text if name in _STRINGS else is_whole if name in ("seed", "index") else is_text or is_whole
    if not fits and not pa.types.is_null(found):
        wanted = "string" if name in _STRINGS else "integer" if name in ("seed", "index") else "string or integer"
        raise SourceError(f"{source}: column {name!r} is {found}, must be {wanted}")


def _record(batch: pa.RecordBatch, row: int, source: str, number: int) -> Record | FailedRecord:
    values: dict[str, object] = {}
    for name in batch.schema.names:
        try:
            values[name] = cell_value(batch.column(name)[row])
        except UnicodeDecodeError:
            return failed(source, number, RowError("BadEncoding", f"{name} is not UTF-8: save it as UTF-8"))
        except RowError as fault:
            return failed(source, number, fault)
    return record(values, source, number)


def cell_value(cell: pa.Scalar) -> object:
    """A cell as a Python value; RowError for a string over LINE_LIMIT_BYTES, UnicodeDecodeError for no UTF-8."""
    if isinstance(cell, pa.DictionaryScalar):
        cell = cell.value
    if isinstance(cell, pa.StringScalar | pa.LargeStringScalar) and cell.is_valid:
        size = len(cell.as_buffer())  # looked at before a Python string is made of it
        if size > LINE_LIMIT_BYTES:
            raise RowError(
                "TextTooLong", f"a string of {size} bytes is over {LINE_LIMIT_BYTES}: split it", stage="text"
            )
    return cell.as_py()
