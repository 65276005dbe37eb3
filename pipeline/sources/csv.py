"""`.csv`: commas, a header row with a `text` column, RFC 4180 quotes. An empty cell is an absent value.

A quoted text may run over several lines. When the quotes of a row do not close, or it has another number of cells
than the header, only its first line fails and reading goes on with the next one: a stray quote costs one record.
"""

import csv
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.errors import excerpt
from pipeline.records import FailedRecord, Record
from pipeline.sources.fields import COLUMNS, RowError, failed, record, too_long
from pipeline.sources.lines import LINE_LIMIT_BYTES, numbered_lines
from pipeline.sources.shards import SourceError

ROW_LIMIT_LINES = 200
"""Lines of one row. It also bounds what is read again after a quote that never closes."""


def read(stream: BinaryIO, source: str) -> Iterator[Record | FailedRecord]:
    """The records of a CSV file; `source` is the shard's name. SourceError for a header without `text`."""
    csv.field_size_limit(max(csv.field_size_limit(), LINE_LIMIT_BYTES))
    lines = _Lines(stream)
    columns: list[str] | None = None
    while (number := lines.next_number()) is not None:
        try:
            cells = lines.row(len(columns) if columns else None)
        except RowError as fault:
            if columns is None:
                raise SourceError(f"{source}: the header cannot be read: {fault}") from fault
            yield failed(source, number, fault)
            continue
        if columns is None:
            columns = _header(cells, source)
        elif cells:
            yield record(_values(columns, cells), source, number)


def _header(cells: list[str], source: str) -> list[str]:
    columns = [cell.strip() for cell in cells]
    for name in COLUMNS:
        if columns.count(name) > 1:
            raise SourceError(f"{source}: the header has the column {name!r} twice: keep one")
    if "text" not in columns:
        raise SourceError(f"{source}: the header {excerpt(columns, 120)} has no column 'text': name it, use commas")
    return columns


def _values(columns: list[str], cells: list[str]) -> dict[str, object]:
    values: dict[str, object] = {
        name: cell for name, cell in zip(columns, cells, strict=True) if cell or name == "text"
    }
    for name in ("seed", "index"):
        cell = values.get(name)
        if isinstance(cell, str) and cell.isascii() and cell.isdigit() and len(cell) <= 20:
            values[name] = int(cell)
    return values


class _Lines:
    """Physical lines with a look ahead, from which rows are taken. Bytes that are not UTF-8 become surrogates here
    and fail with their own field's check."""

    def __init__(self, stream: BinaryIO):
        self._source = numbered_lines(stream)
        self._ahead: deque[tuple[int, str | None]] = deque()

    def _line(self, place: int) -> tuple[int, str | None] | None:
        while len(self._ahead) <= place:
            found = next(self._source, None)
            if found is None:
                return None
            number, line = found
            self._ahead.append((number, None if line is None else line.decode("utf-8", "surrogateescape")))
        return self._ahead[place]

    def next_number(self) -> int | None:
        """The number of the line at which the next row starts; None at the end."""
        first = self._line(0)
        return first[0] if first else None

    def row(self, width: int | None) -> list[str]:
        """The cells of the next row ([] for a blank line). After a RowError only its first line is used up."""
        first = self._line(0)
        used = 1
        try:
            if first is None or first[1] is None:
                raise too_long()
            feed = _Feed(self)
            try:
                cells = next(csv.reader(feed, strict=True), [])
            except csv.Error as error:
                raise RowError("BadCsv", f"the row's quotes do not close as they should: {error}") from error
            if cells and width is not None and len(cells) != width:
                raise RowError("BadCsv", f"the row has {len(cells)} cells, the header {width}: quote commas and quotes")
            used = feed.used
            return cells
        finally:
            for _ in range(used):
                self._ahead.popleft()


class _Feed:
    """Gives csv.reader the lines of one row and counts them; ends at a limit, which `strict` turns into an error."""

    def __init__(self, lines: _Lines):
        self._lines, self.used, self._bytes = lines, 0, 0

    def __iter__(self):
        return self

    def __next__(self) -> str:
        found = self._lines._line(self.used)
        if found is None or found[1] is None or self.used == ROW_LIMIT_LINES or self._bytes > LINE_LIMIT_BYTES:
            raise StopIteration
        self.used += 1
        self._bytes += len(found[1])
        return found[1] + "\n"
