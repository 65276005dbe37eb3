"""Quantisation, levels, joining, and files whose bytes repeat."""

import contextlib
import io

import numpy as np
import pytest
import soundfile

from pipeline.outputs.audio import (
    CONTAINERS,
    LOSSLESS,
    SILENCE_DBFS,
    BadAudio,
    decode,
    encode,
    join_chunks,
    levels_dbfs,
    pcm16,
    pcm_sha256,
)


def tone(seconds: float = 0.5) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(24000 * seconds)) / 24000)).astype(np.float32)


def test_samples_are_rounded_and_clipped():
    assert pcm16(np.array([0, 1, -1, 2, -9, 0.5, 1e-9], np.float32)).tolist() == [
        0,
        32767,
        -32767,
        32767,
        -32767,
        16384,
        0,
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(bad: float):
    with pytest.raises(BadAudio, match="audio has 1 samples that are NaN or Inf"):
        pcm16(np.array([0, bad], np.float32))


@pytest.mark.parametrize("shape", [(0,), (2, 3), ()])
def test_what_is_not_a_row_of_samples_is_refused(shape: tuple):
    with pytest.raises(BadAudio, match="must be one row of samples: nothing was spoken"):
        pcm16(np.zeros(shape, np.float32))


def test_levels():
    assert levels_dbfs(np.zeros(10, np.int16)) == (SILENCE_DBFS, SILENCE_DBFS)
    assert levels_dbfs(np.full(10, 32767, np.int16)) == (0, 0)
    peak, rms = levels_dbfs(pcm16(tone()))
    assert (peak, rms) == pytest.approx((-6.02, -9.03), abs=0.01)
    assert levels_dbfs(np.array([-32768], np.int16))[0] == pytest.approx(0, abs=0.001)


@pytest.mark.parametrize("audio_format", CONTAINERS)
def test_bytes_repeat_and_decode_to_the_same_length(audio_format: str):
    first, second = (encode(pcm16(tone()), sample_rate=24000, audio_format=audio_format) for _ in range(2))
    assert first == second
    pcm, sample_rate = decode(first.data)
    assert sample_rate == 24000
    assert len(pcm) == pytest.approx(first.num_samples, abs=2500)  # MP3 pads its last frames
    assert levels_dbfs(pcm)[1] == pytest.approx(-9.03, abs=1)


@pytest.mark.parametrize("audio_format", LOSSLESS)
def test_lossless_files_hold_the_fingerprinted_samples(audio_format: str):
    sound = encode(pcm16(tone()), sample_rate=24000, audio_format=audio_format)
    assert pcm_sha256(decode(sound.data)[0]) == sound.pcm_sha256 == pcm_sha256(pcm16(tone()))


@pytest.mark.parametrize("cut", [0, 4, 40])
def test_audio_that_is_cut_off_at_its_head_is_refused(cut: int):
    data = encode(pcm16(tone()), sample_rate=24000, audio_format="flac").data[:cut]
    with pytest.raises(BadAudio, match="audio cannot be decoded: "):
        decode(data)


@pytest.mark.parametrize("flipped", [200, 2000, -100])
def test_a_flipped_bit_changes_the_fingerprint_or_is_refused(flipped: int):
    data = bytearray(encode(pcm16(tone()), sample_rate=24000, audio_format="flac").data)
    data[flipped] ^= 16
    with contextlib.suppress(BadAudio):
        assert pcm_sha256(decode(bytes(data))[0]) != pcm_sha256(pcm16(tone()))


def test_stereo_is_refused():
    sink = io.BytesIO()
    soundfile.write(sink, np.zeros((10, 2), np.int16), 24000, format="WAV")
    with pytest.raises(BadAudio, match="audio has 2 channels, must be mono"):
        decode(sink.getvalue())


def test_chunks_are_joined_with_silence_between():
    joined = join_chunks([np.ones(3), np.full(2, 2)], silence_s=2 / 24000, sample_rate=24000)
    assert joined.tolist() == [1, 1, 1, 0, 0, 2, 2]
    assert joined.dtype == np.float32


def test_one_chunk_stays_as_it_is():
    assert join_chunks([np.ones(3)], silence_s=0.25, sample_rate=24000).tolist() == [1, 1, 1]


def test_no_chunks_are_no_audio():
    assert join_chunks([], silence_s=0.25, sample_rate=24000).size == 0
