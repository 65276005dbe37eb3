"""What flows through the pipeline: records, their chunks, and the rows that failed. Picklable, without Beam or jax."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Record:
    """One input record: a text that becomes one audio.

    `source` and `line` say where it was read (line or row number, from 1). `voice`, `language`, `seed`, `document`
    and `index` are the record's own values; None means the job's.
    """

    id: str
    text: str
    source: str
    line: int
    voice: str | None = None
    language: str | None = None
    seed: int | None = None
    document: str | None = None
    index: int | None = None


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of a record that one clip holds. `start` and `end` are character offsets into the record's text."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class FailedRecord:
    """A record that cannot be (or was not) synthesised: one line of `failed/*.jsonl`.

    `id` is the record's id, or one made from source and line when it has none. `stage` is read, text, voice,
    semantic, coarse, fine, audio or write; `error` a short class name such as EmptyText; `message` one line.
    """

    id: str
    source: str
    stage: str
    error: str
    message: str
    attempts: int = 1


def line_id(source_name: str, line: int) -> str:
    """The stable id of a record without one: the shard's base name and the line, such as `part-3.txt:17`."""
    return f"{source_name}:{line}"


def id_digest(record_id: str) -> bytes:
    """sha256 of the id's UTF-8 bytes (32 bytes): deals records to buckets and orders them, whatever their arrival."""
    return hashlib.sha256(record_id.encode("utf-8", "surrogatepass")).digest()
