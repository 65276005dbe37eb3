import io

import numpy as np
import pytest
import soundfile

from pipeline.sources import SourceError, audio
from pipeline.sources.audio import list_audio_shards, read_audio

TONE = (0.5 * np.sin(np.arange(2400) / 20)).astype(np.float32)


def encoded(samples, kind, *, rate=24000, subtype=None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(("name", "kind"), [("a.wav", "WAV"), ("b.flac", "FLAC")])
def test_a_file_is_a_record(shard, name, kind):
    found = read_audio(shard(name, encoded(TONE, kind)), 24000)
    assert (found.record.id, found.record.source) == (name, name)
    assert found.waveform.dtype == np.float32
    np.testing.assert_allclose(found.waveform, TONE, atol=1e-4)


def test_channels_are_averaged(shard):
    stereo = np.stack([TONE, -TONE], axis=1)
    found = read_audio(shard("a.wav", encoded(stereo, "WAV", subtype="FLOAT")), 24000)
    assert found.waveform.shape == TONE.shape
    assert not found.waveform.any()


NAN = np.array([0.0, np.nan], np.float32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(TONE, "WAV", rate=16000), "sample rate is 16000 Hz, must be 24000 Hz: resample it"),
        (encoded(TONE[:0], "WAV"), "file has 0 samples in 1 channels, must have 1 to 43200000 in all: split it"),
        (encoded(TONE, "OGG"), "file is OGG, must be WAV or FLAC: convert it"),
        (encoded(NAN, "WAV", subtype="FLOAT"), "file holds samples that are no numbers: write it again"),
        (b"no audio", "file cannot be decoded: "),
        (b"", "file cannot be decoded: "),
        (encoded(TONE, "FLAC")[:600], ""),
    ],
)
def test_a_bad_file_fails_alone(shard, data, message):
    bad = read_audio(shard("a.wav", data), 24000)
    assert (bad.id, bad.stage, bad.error) == ("a.wav", "audio", "BadAudio")
    assert bad.message.startswith(message)
    assert "\n" not in bad.message


def test_a_long_file_is_refused_by_its_header(shard, monkeypatch):
    monkeypatch.setattr(audio, "AUDIO_LIMIT_S", 0.05)
    bad = read_audio(shard("a.flac", encoded(TONE, "FLAC")), 24000)
    assert bad.message.startswith("file has 2400 samples in 1 channels, must have 1 to 1200")


@pytest.mark.parametrize("compression", ["", ".gz"])
def test_a_large_file_is_not_read(shard, packed, monkeypatch, compression):
    monkeypatch.setattr(audio, "FILE_LIMIT_BYTES", 1000)
    bad = read_audio(shard("a.wav" + compression, packed(encoded(TONE * 0, "WAV"), compression)), 24000)
    assert bad.error == "BadAudio"
    assert bad.message.endswith("split it")


def test_only_wav_and_flac_are_listed(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"")
    with pytest.raises(SourceError, match=r"unknown extension: known are \.wav, \.flac"):
        list_audio_shards(f"{tmp_path}/*")
