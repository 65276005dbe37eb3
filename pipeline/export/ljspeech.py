"""LJSpeech, which most TTS trainers read: 16-bit WAV files and `metadata.csv` with `id|text|normalised text`."""

from collections.abc import Iterator

from pipeline.export.lines import write_lines
from pipeline.export.records import ExportRecord
from pipeline.outputs.audio import decode, encode
from pipeline.store import Store


def write_ljspeech(records: Iterator[ExportRecord], destination: Store) -> None:
    """`wavs/NAME.wav` and `metadata.csv`. The text is both columns: nothing here normalises it."""

    def write(record: ExportRecord) -> str:
        destination.create(f"wavs/{record.name}.wav", _wav(record))
        text = record.line.replace("|", " ")  # the format has no way to quote it
        return f"{record.name}|{text}|{text}"

    write_lines(destination, "metadata.csv", destination.each(write, records))


def _wav(record: ExportRecord) -> bytes:
    if record.audio_format == "wav":
        return record.data
    pcm, sample_rate = decode(record.data)
    return encode(pcm, sample_rate=sample_rate, audio_format="wav").data
