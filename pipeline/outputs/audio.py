"""Samples -> PCM -> FLAC, WAV, MP3 or Opus bytes, all in memory and the same bytes every time."""

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile

from bark_model.axes import Waveform

SILENCE_DBFS = -120.0
"""What the level of all-zero samples is called, instead of minus infinity."""

CONTAINERS = {
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
}
LOSSLESS = ("flac", "wav")
_FULL_SCALE = 32767


class BadAudio(ValueError):
    """A waveform that no file should hold; the message says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Encoded audio, and what is known of its samples before encoding."""

    data: bytes
    pcm_sha256: str
    num_samples: int


def pcm16(waveform: Waveform) -> np.ndarray:
    """float [L] in -1..1 -> int16 [L]: the one place where samples are quantised. Louder ones are clipped.

    BadAudio when it is empty, not one row of samples, or holds NaN or Inf (soundfile would write a full-scale click).
    """
    if waveform.ndim != 1 or waveform.size == 0:
        raise BadAudio(f"audio has the shape {waveform.shape}, must be one row of samples: nothing was spoken")
    if not np.isfinite(waveform).all():
        raise BadAudio(f"audio has {np.count_nonzero(~np.isfinite(waveform))} samples that are NaN or Inf")
    return np.rint(np.clip(waveform.astype(np.float64), -1, 1) * _FULL_SCALE).astype("<i2")


def pcm_sha256(pcm: np.ndarray) -> str:
    """sha256 of 16-bit little-endian samples: the fingerprint of audio, whatever it is encoded as."""
    return hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()


def levels_dbfs(pcm: np.ndarray) -> tuple[float, float]:
    """Peak and root-mean-square level of int16 samples, in dB relative to full scale. Summed exactly, as integers."""
    wide = pcm.astype(np.int64)
    peak = int(np.abs(wide).max())
    mean_square = int((wide * wide).sum()) / wide.size
    if peak == 0:
        return SILENCE_DBFS, SILENCE_DBFS
    return 20 * math.log10(peak / _FULL_SCALE), 10 * math.log10(mean_square / _FULL_SCALE**2)


def join_chunks(waveforms: Sequence[Waveform], *, silence_s: float, sample_rate: int) -> Waveform:
    """A record's chunks in order as one waveform, with silence between them (none before, none after).

    silence of 2 samples:  [a b c] [d e]  ->  [a b c 0 0 d e]
    """
    pause = np.zeros(round(silence_s * sample_rate), np.float32)
    pieces = [piece for waveform in waveforms for piece in (pause, np.asarray(waveform, np.float32))]
    return np.concatenate(pieces[1:]) if pieces else np.zeros(0, np.float32)


def encode(pcm: np.ndarray, *, sample_rate: int, audio_format: str) -> Sound:
    """int16 [L] -> an audio file's bytes."""
    container, subtype = CONTAINERS[audio_format]
    sink = io.BytesIO()
    soundfile.write(sink, pcm, sample_rate, format=container, subtype=subtype)
    digest = pcm_sha256(pcm)
    data = sink.getvalue()
    if container == "OGG":
        data = _with_serial(data, int(digest[:8], 16))
    return Sound(data=data, pcm_sha256=digest, num_samples=len(pcm))


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """An audio file's bytes -> int16 [L] and the sample rate. BadAudio when they are damaged or not mono."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.channels != 1:
                raise BadAudio(f"audio has {file.channels} channels, must be mono")
            return file.read(dtype="int16"), file.samplerate
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise BadAudio(f"audio cannot be decoded: {error}") from error


def _with_serial(ogg: bytes, serial: int) -> bytes:
    """An Ogg stream with another serial number. libsndfile draws one at random, so that bytes would not repeat.

    A page (RFC 3533, section 6): `OggS`, ..., serial at 14, checksum at 22, number of segments at 26, their sizes.
    """
    data, at = bytearray(ogg), 0
    while at < len(data):
        segments = data[at + 26]
        end = at + 27 + segments + sum(data[at + 27 : at + 27 + segments])
        data[at + 14 : at + 18] = serial.to_bytes(4, "little")
        data[at + 22 : at + 26] = bytes(4)
        data[at + 22 : at + 26] = _ogg_crc(data[at:end]).to_bytes(4, "little")
        at = end
    return bytes(data)


@cache
def _ogg_crc_table() -> tuple[int, ...]:
    table = []
    for n in range(256):
        value = n << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return tuple(table)


def _ogg_crc(page: bytes | bytearray) -> int:
    """Ogg's CRC-32: polynomial 0x04c11db7, not reflected, starting from 0."""
    table, value = _ogg_crc_table(), 0
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ table[(value >> 24) ^ byte]
    return value
