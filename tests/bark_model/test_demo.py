"""The voice that ships: it loads from the package, ends by itself, speaks transformers' tokens, and it is speech."""

import jax
import numpy as np
import pytest

from bark_model import Bark, Request, Result, Sampling
from tests.bark_model.reference import Reference
from tests.bark_model.test_parity import Tally, compare

RATE = 24000
WINDOW, HOP = 1024, 320


@pytest.fixture(scope="module")
def bark() -> Bark:
    return Bark.load("demo", slots=1, devices=jax.local_devices()[:1])


@pytest.fixture(scope="module")
def request_(bark) -> Request:
    return Request(
        id="window",
        text="She opened the window.",
        voice=bark.voice("v2/en_speaker_0"),
        sampling=Sampling.greedy("transformers"),
    )


@pytest.fixture(scope="module")
def result(bark, request_) -> Result:
    [result] = bark.synthesize([request_])
    assert isinstance(result, Result)
    return result


def measures(audio: np.ndarray) -> dict[str, float]:
    """What tells speech from noise, tones and silence: pitch, level and spectrum, and how they change.

    `voiced` share of the loud frames with a period; `pitch_hz` their median; `range_db` from soft to loud;
    `variety` standard deviation over time of the shape of the spectrum, in nepers.
    """
    frames = np.lib.stride_tricks.sliding_window_view(audio.astype(np.float64), WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, 2 * WINDOW)) ** 2
    level = 10 * np.log10(power.sum(axis=1) + 1e-12)
    loud = level > level.max() - 30
    taper = np.abs(np.fft.rfft(np.hanning(WINDOW), 2 * WINDOW)) ** 2
    shortest, longest = RATE // 400, RATE // 80
    correlation = np.fft.irfft(power / power.sum(axis=1, keepdims=True))[:, :longest]
    correlation = correlation / correlation[:, :1] / (np.fft.irfft(taper)[:longest] / np.fft.irfft(taper)[0])
    lag = correlation[:, shortest:].argmax(axis=1) + shortest
    voiced = loud & (correlation[np.arange(len(lag)), lag] > 0.6)
    edges = np.searchsorted(np.fft.rfftfreq(2 * WINDOW, 1 / RATE), np.geomspace(200, 9000, 13))
    bands = np.log(np.add.reduceat(power, edges, axis=1)[loud, :-1] + 1e-9)
    return {
        "voiced": float(voiced.mean()),
        "pitch_hz": float(np.median(RATE / lag[voiced])) if voiced.any() else 0.0,
        "range_db": float(np.percentile(level, 95) - np.percentile(level, 5)),
        "variety": float((bands - bands.mean(axis=1, keepdims=True)).std(axis=0).mean()),
    }


def is_speech(audio: np.ndarray) -> bool:
    """Whether the measures are a woman's; the teacher has 0.6 to 0.8, 165 to 180 Hz, 47 to 58 dB, 2.0 to 2.3."""
    found = measures(audio)
    return (
        0.3 < found["voiced"] < 0.95
        and 120 < found["pitch_hz"] < 250
        and found["range_db"] > 35
        and found["variety"] > 1.3
    )


def noise(seconds: float = 2.0) -> np.ndarray:
    return np.random.default_rng(0).normal(size=round(RATE * seconds)) * 0.1


def syllables() -> np.ndarray:
    """Buzz of 180 Hz, four times a second: the pitch and the rhythm of speech, always the same vowel."""
    time = np.arange(2 * RATE) / RATE
    buzz = sum(np.sin(2 * np.pi * 180 * k * time) / k for k in range(1, 40))
    return buzz * (1.001 + np.sin(2 * np.pi * 4 * time))


def test_greedy_tokens_of_the_demo_voice_are_transformers(bark, request_, result):
    """One sentence, one voice, greedy; its weights are float16 in the file and float32 in both programs."""
    reference, tally = Reference(bark.checkpoint.folder), Tally()
    assert result.stop_reason == "eos"
    compare(bark, reference, request_, result, tally)
    assert tally.compared > 100
    assert not tally.left_out


def test_the_demo_voice_speaks(bark, result):
    """Two tokens or so a character, and the measures of speech: no model is asked."""
    text = "She opened the window."
    assert 1.2 * len(text) < len(result.semantic) < 4 * len(text)
    assert len(result.audio) == len(result.semantic) * 640
    assert is_speech(result.audio), measures(result.audio)


@pytest.mark.parametrize("audio", [noise(), syllables(), noise() * syllables(), np.zeros(2 * RATE)])
def test_what_is_not_speech_is_told_apart(audio):
    with np.errstate(invalid="ignore", divide="ignore"):
        assert not is_speech(audio)
