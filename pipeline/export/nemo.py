"""NVIDIA NeMo: audio files and a manifest of JSON lines with `audio_filepath`, `duration` and `text`."""

import json
from collections.abc import Iterator

from pipeline.export.lines import write_lines
from pipeline.export.records import ExportRecord
from pipeline.store import Store


def write_nemo(records: Iterator[ExportRecord], destination: Store) -> None:
    """`audio/NAME.flac` and `manifest.jsonl`, whose paths are relative to it as NeMo expects."""

    def write(record: ExportRecord) -> str:
        path = f"audio/{record.name}.{record.audio_format}"
        destination.create(path, record.data)
        values = {"audio_filepath": path, "duration": round(record.duration_s, 4), "text": record.line}
        return json.dumps(values | {"lang": record.language, "id": record.id}, ensure_ascii=False)

    write_lines(destination, "manifest.jsonl", destination.each(write, records))
