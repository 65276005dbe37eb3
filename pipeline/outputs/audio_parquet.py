"""Audio in Parquet as Hugging Face `datasets` stores it: struct<bytes, path> and a feature description."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from pipeline.outputs.tokens import open_parquet, parquet_bytes

_AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True, kw_only=True)
class AudioRow:
    """A record's audio: its encoded bytes, and a safe file name for whoever unpacks it."""

    id: str
    text: str
    data: bytes
    path: str
    duration_s: float
    language: str | None = None
    voice: str | None = None


def schema(sample_rate: int) -> pa.Schema:
    """The columns, with the metadata by which `datasets` decodes `audio` as Audio(sample_rate)."""
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        "text": {"dtype": "string", "_type": "Value"},
        "language": {"dtype": "string", "_type": "Value"},
        "voice": {"dtype": "string", "_type": "Value"},
        "audio": {"sampling_rate": sample_rate, "_type": "Audio"},
        "duration_s": {"dtype": "float64", "_type": "Value"},
    }
    return pa.schema(
        [
            ("id", pa.string()),  # the record's id
            ("text", pa.string()),  # the record's whole text
            ("language", pa.string()),  # one of Bark's 13 codes, such as en
            ("voice", pa.string()),  # a preset's name or an .npz; null for none
            ("audio", _AUDIO),  # encoded bytes and a file name
            ("duration_s", pa.float64()),  # seconds of audio, with the pauses between chunks
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


def write_audio(rows: Sequence[AudioRow], *, sample_rate: int) -> bytes:
    """The Parquet file of the rows, the same bytes every time."""
    table = {
        "id": [row.id for row in rows],
        "text": [row.text for row in rows],
        "language": [row.language for row in rows],
        "voice": [row.voice for row in rows],
        "audio": [{"bytes": row.data, "path": row.path} for row in rows],
        "duration_s": [row.duration_s for row in rows],
    }
    return parquet_bytes(pa.table(table, schema=schema(sample_rate)))


def read_audio(file: BinaryIO) -> Iterator[AudioRow]:
    """The rows of an audio file, one at a time."""
    for batch in open_parquet(file).iter_batches(batch_size=16):
        for values in batch.to_pylist():
            audio = values.pop("audio")
            yield AudioRow(data=audio["bytes"], path=audio["path"], **values)
