"""WAV and FLAC files to encode, for `job: reprocess` from audio: a file is a record."""

import io
from dataclasses import dataclass

import numpy as np
import soundfile

from bark_model.axes import Waveform
from pipeline.records import FailedRecord, Record
from pipeline.sources.fields import RowError, failed
from pipeline.sources.opening import open_shard
from pipeline.sources.shards import Shard, list_shards, one_line

AUDIO_FORMATS = (".wav", ".flac")
AUDIO_LIMIT_S = 1800
"""The longest recording, its channels taken together: 165 MB of samples at 24 kHz."""

FILE_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A decoded file. Its record has the file's name as id and no text."""

    record: Record
    waveform: Waveform


def list_audio_shards(inputs: str) -> tuple[Shard, ...]:
    """The audio files of a path or glob, each a shard."""
    return list_shards(inputs, AUDIO_FORMATS)


def read_audio(shard: Shard, sample_rate: int) -> Recording | FailedRecord:
    """The file as mono float32 (channels averaged) at `sample_rate` Hz.

    A FailedRecord (BadAudio) for a file over the limits, at another rate, damaged, truncated, empty or with NaN; its
    header is looked at before samples are decoded. SourceError when the file is gone or changed since it was listed.
    """
    try:
        waveform = _decode(_content(shard), sample_rate)
    except RowError as fault:
        return failed(shard.name, 1, fault, shard.name)
    return Recording(record=Record(id=shard.name, text="", source=shard.name, line=1), waveform=waveform)


def _content(shard: Shard) -> bytes:
    if shard.size_bytes > FILE_LIMIT_BYTES:
        raise _bad(f"file has {shard.size_bytes} bytes, limit {FILE_LIMIT_BYTES}: split it")
    compression = next((ending for ending in (".gz", ".zst") if shard.name.lower().endswith(ending)), "")
    with open_shard(shard, compression) as stream:
        data = stream.read(FILE_LIMIT_BYTES + 1)
    if len(data) > FILE_LIMIT_BYTES:
        raise _bad(f"file unpacks to over {FILE_LIMIT_BYTES} bytes: split it")
    return data


def _decode(data: bytes, sample_rate: int) -> Waveform:
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.format not in ("WAV", "WAVEX", "FLAC", "RF64"):
                raise _bad(f"file is {file.format}, must be WAV or FLAC: convert it")
            if file.samplerate != sample_rate:
                raise _bad(f"sample rate is {file.samplerate} Hz, must be {sample_rate} Hz: resample it")
            if not 1 <= file.frames * file.channels <= AUDIO_LIMIT_S * sample_rate:
                raise _bad(
                    f"file has {file.frames} samples in {file.channels} channels, must have 1 to "
                    f"{AUDIO_LIMIT_S * sample_rate} in all: split it"
                )
            promised = file.frames
            samples = file.read(dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise _bad(f"file cannot be decoded: {one_line(error)}") from error
    if len(samples) != promised:
        raise _bad(f"file ends after {len(samples)} of {promised} samples: copy it again")
    waveform = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(waveform).all():
        raise _bad("file holds samples that are no numbers: write it again")
    return waveform


def _bad(message: str) -> RowError:
    return RowError("BadAudio", message, stage="audio")
