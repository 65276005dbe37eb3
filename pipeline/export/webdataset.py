"""WebDataset: tar shards in which files that differ in their ending only are one sample."""

import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from pipeline.export.records import ExportRecord
from pipeline.store import Store

_SHARD_RECORDS = 1000


def write_webdataset(records: Iterator[ExportRecord], destination: Store) -> None:
    """`shard-000000.tar` and so on, 1000 records each: `NAME.flac` and `NAME.json`. The same bytes every time."""
    for number, first in enumerate(records):
        part = chain([first], islice(records, _SHARD_RECORDS - 1))
        with tempfile.TemporaryDirectory() as folder:
            collected = Path(folder) / "shard.tar"
            _write_tar(collected, part)
            destination.create(f"shard-{number:06d}.tar", collected)


def _write_tar(path: Path, records: Iterable[ExportRecord]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for record in records:
            facts = {"id": record.id, "text": record.text, "language": record.language, "voice": record.voice}
            facts |= {"duration_s": record.duration_s, "sample_rate": record.sample_rate}
            _add(tar, f"{record.name}.{record.audio_format}", record.data)
            _add(tar, f"{record.name}.json", json.dumps(facts, ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time and owner stay zero
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
