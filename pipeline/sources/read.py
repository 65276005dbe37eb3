"""The records of a shard, whatever its format."""

from collections.abc import Iterator

from pipeline.records import FailedRecord, Record
from pipeline.sources import csv, jsonl, parquet, text
from pipeline.sources.opening import open_seekable, open_shard
from pipeline.sources.shards import Shard, SourceError, split_format

_READERS = {".txt": text.read, ".jsonl": jsonl.read, ".csv": csv.read}


def read_shard(shard: Shard) -> Iterator[Record | FailedRecord]:
    """Reads a shard as a stream: every line or row that is wrong is a FailedRecord, the others are Records.

    Raises SourceError, which names the shard, for what concerns it as a whole: it is gone, truncated, damaged, was
    changed since it was listed, or has no usable header. Nothing yielded before that may then be used.
    """
    kind, compression = split_format(shard.name)
    try:
        if kind == ".parquet":
            with open_seekable(shard, compression) as stream:
                yield from parquet.read(stream, shard.name)
        else:
            with open_shard(shard, compression) as stream:
                yield from _READERS[kind](stream, shard.name)
    except MemoryError as error:
        raise SourceError(f"{shard.name}: reading it needs more memory than there is: split it") from error
