"""`.txt`: a record a line. Blank lines are neither records nor failures, but count as lines."""

from collections.abc import Iterator
from typing import BinaryIO

from pipeline.records import FailedRecord, Record
from pipeline.sources.fields import RowError, decoded, failed, record, too_long
from pipeline.sources.lines import numbered_lines


def read(stream: BinaryIO, source: str) -> Iterator[Record | FailedRecord]:
    """The records of a text file; `source` is the shard's name."""
    for number, line in numbered_lines(stream):
        try:
            if line is None:
                raise too_long()
            text = decoded(line)
        except RowError as fault:
            yield failed(source, number, fault)
            continue
        if text.strip():
            yield record({"text": text}, source, number)
