"""The codec's latents, defined rather than learned: log mel bands, and the phase and pitch of the fundamental.

A vocoded voice is a function of its envelope and of where its pitch pulses are. A frame's latent says just that, so
its codes hold nothing a language model could not foresee. Every window is centred on its frame of 320 samples.
"""

import math

import numpy as np
import scipy.fft
from codec import PRE_EMPHASIS, WIDTH, mel_filters
from phones import SAMPLE_RATE

HOP = 320
BANDS = WIDTH - 4
MEL_WINDOW, PHASE_WINDOW, PITCH_WINDOW = 512, 640, 1024
MEAN_LEVEL, FLOOR = 0.00018, 0.005  # mel magnitude of speech on the average, and the least that counts, relative to it
LOWEST_HZ, HIGHEST_HZ = 90, 350
VOICED_CORRELATION, VOICED_RMS = 0.5, 0.005
# weights of the last four numbers of a latent, beside which a mel band has about unit variance
PHASE_WEIGHT, PITCH_WEIGHT, VOICED_WEIGHT = 2.0, 0.7, 1.0
MIDDLE_HZ, SPREAD_HZ = 175.0, 25.0
FILTERS = mel_filters(1024, BANDS).numpy()


def windows(audio: np.ndarray, length: int) -> np.ndarray:
    """Frames (T, length) of audio (320 T,), each centred on its 320 samples, times a Hann window."""
    margin = (length - HOP) // 2
    padded = np.pad(audio, (margin, length - HOP - margin))
    view = np.lib.stride_tricks.sliding_window_view(padded, length)[::HOP]
    return (view * np.hanning(length)).astype(np.float32)


def log_mels(audio: np.ndarray) -> np.ndarray:
    """Natural logarithm of the mel magnitudes (T, BANDS) of the pre-emphasised signal, with a floor."""
    sharp = np.diff(audio, prepend=audio[:1]) + (1 - PRE_EMPHASIS) * audio
    spectrum = np.abs(scipy.fft.rfft(windows(sharp, MEL_WINDOW), 1024))
    return np.log(spectrum @ FILTERS / MEL_WINDOW / MEAN_LEVEL + FLOOR)


def pitch(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fundamental in Hz (T,) and whether a frame is voiced (T,), by normalised autocorrelation."""
    short, long = SAMPLE_RATE // HIGHEST_HZ, SAMPLE_RATE // LOWEST_HZ
    frames = windows(audio, PITCH_WINDOW)
    correlation = scipy.fft.irfft(np.abs(scipy.fft.rfft(frames, 2 * PITCH_WINDOW)) ** 2)[:, : long + 1]
    # the window's own autocorrelation is divided out, or long lags would look unvoiced
    taper = scipy.fft.irfft(np.abs(scipy.fft.rfft(np.hanning(PITCH_WINDOW), 2 * PITCH_WINDOW)) ** 2)[: long + 1]
    correlation = correlation / (taper / taper[0]) / (correlation[:, :1] + 1e-9)
    lag = correlation[:, short:].argmax(axis=1) + short
    strength = correlation[np.arange(len(lag)), lag]
    hertz = SAMPLE_RATE / lag
    edges = np.pad(hertz, 1, mode="edge")
    hertz = np.median(np.stack([edges[:-2], edges[1:-1], edges[2:]]), axis=0)
    loud = np.sqrt((frames**2).mean(axis=1)) > VOICED_RMS
    return hertz, (strength > VOICED_CORRELATION) & loud


def phase(audio: np.ndarray, hertz: np.ndarray) -> np.ndarray:
    """Phase (T,) in radians of the component at hertz (T,), in the middle of each frame."""
    time = (np.arange(PHASE_WINDOW) - (PHASE_WINDOW - 1) / 2) / SAMPLE_RATE
    wave = np.exp(-2j * math.pi * hertz[:, None] * time)
    return np.angle((windows(audio, PHASE_WINDOW) * wave).sum(axis=1))


def latents(audio: np.ndarray) -> np.ndarray:
    """Audio (320 T,) in -1..1 at 24 kHz -> latents (T, WIDTH) float32: mel bands, phase, pitch, voicing."""
    hertz, voiced = pitch(audio)
    angle = phase(audio, hertz)
    bands = (log_mels(audio) + 1.4) / 1.8
    height = np.clip((hertz - MIDDLE_HZ) / SPREAD_HZ, -2.5, 2.5)
    source = [
        PHASE_WEIGHT * np.cos(angle), PHASE_WEIGHT * np.sin(angle),
        PITCH_WEIGHT * height, VOICED_WEIGHT * np.ones_like(height),
    ]  # fmt: skip
    return np.concatenate([bands, np.stack(source, axis=1) * voiced[:, None]], axis=1).astype(np.float32)
