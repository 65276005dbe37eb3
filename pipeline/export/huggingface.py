"""Hugging Face `datasets`: Parquet shards whose `audio` loads as Audio, and a card that names them."""

from collections.abc import Iterator

from pipeline.export.records import ExportRecord
from pipeline.outputs.audio_parquet import AudioRow, write_audio
from pipeline.outputs.card import audio_info, make_card
from pipeline.store import Store

_SHARD_BYTES = 64 << 20


def write_huggingface(records: Iterator[ExportRecord], destination: Store) -> None:
    """`data/train-00000.parquet` and so on, about 64 MB each, and `README.md`."""
    paths, rows, size, hours, count, rate = [], [], 0, 0.0, 0, 0
    for record in records:
        rows.append(_row(record))
        size, hours, count, rate = (
            size + len(record.data),
            hours + record.duration_s / 3600,
            count + 1,
            record.sample_rate,
        )
        if size >= _SHARD_BYTES:
            paths.append(_write(destination, len(paths), rows, rate))
            rows, size = [], 0
    if rows:
        paths.append(_write(destination, len(paths), rows, rate))
    facts = {"records": count, "hours of audio": f"{hours:.2f}", "sample rate": f"{rate} Hz, mono"}
    info = audio_info("default", rate)
    card = make_card(facts, {"default": paths}, [info], note="Load it with `datasets.load_dataset`.")
    destination.put("README.md", card.encode())


def _row(record: ExportRecord) -> AudioRow:
    return AudioRow(
        id=record.id,
        text=record.text,
        language=record.language,
        voice=record.voice,
        data=record.data,
        path=f"{record.name}.{record.audio_format}",
        duration_s=record.duration_s,
    )


def _write(destination: Store, number: int, rows: list[AudioRow], sample_rate: int) -> str:
    path = f"data/train-{number:05d}.parquet"
    destination.create(path, write_audio(rows, sample_rate=sample_rate))
    return path
