"""Semantic classes of the demo voice: (phone, third of the phone, pitch class), and the constants around them."""

import numpy as np

SEMANTIC_RATE_HZ = 37.5  # half of the codec's 75 Hz: a semantic token is exactly two frames, four coarse tokens
SAMPLE_RATE = 24000
SAMPLES_PER_SEMANTIC = 640
# festival's US English phone set
PHONES = (
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
).split()
THIRDS = 3
# upper edges, in Hz, of the voiced pitch classes 1, 2, 3; class 4 is above, class 0 is unvoiced
PITCH_EDGES_HZ = (155.0, 172.0, 192.0)
PITCH_CLASSES = len(PITCH_EDGES_HZ) + 2
SEMANTIC_VOCAB = len(PHONES) * THIRDS * PITCH_CLASSES


def semantic_ids(phone: np.ndarray, third: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Class of each token from its three parts; a pause has one class whatever its third and pitch."""
    ids = (phone * THIRDS + third) * PITCH_CLASSES + pitch
    return np.where(phone == 0, 0, ids).astype(np.int32)


def phone_of(ids: np.ndarray) -> np.ndarray:
    """Phone index of each semantic class."""
    return np.asarray(ids) // (THIRDS * PITCH_CLASSES)


def pitch_classes(audio: np.ndarray, tokens: int) -> np.ndarray:
    """Pitch class of each semantic token: normalised autocorrelation over 43 ms, between 90 and 350 Hz.

    audio (samples,) float at 24 kHz -> (tokens,) int: 0 unvoiced, 1..4 from low to high.
    """
    window, short, long = 1024, SAMPLE_RATE // 350, SAMPLE_RATE // 90
    half = window // 2
    padded = np.pad(audio, (half, half + SAMPLES_PER_SEMANTIC))
    starts = np.arange(tokens) * SAMPLES_PER_SEMANTIC + SAMPLES_PER_SEMANTIC // 2
    frames = padded[starts[:, None] + np.arange(window)] * np.hanning(window)
    spectrum = np.abs(np.fft.rfft(frames, 2 * window)) ** 2
    correlation = np.fft.irfft(spectrum)[:, : long + 1]
    # the window's own autocorrelation is divided out, or long lags would look unvoiced
    taper = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(window), 2 * window)) ** 2)[: long + 1]
    correlation = correlation / (taper / taper[0]) / (correlation[:, :1] + 1e-9)
    lag = correlation[:, short:].argmax(axis=1) + short
    strength = correlation[np.arange(tokens), lag]
    loud = np.sqrt((frames**2).mean(axis=1)) > 0.005
    hertz = SAMPLE_RATE / lag
    # a median over three frames removes single octave slips
    edges = np.pad(hertz, 1, mode="edge")
    hertz = np.median(np.stack([edges[:-2], edges[1:-1], edges[2:]]), axis=0)
    return np.where((strength > 0.5) & loud, 1 + np.searchsorted(PITCH_EDGES_HZ, hertz), 0)


def spread_phones(ends_s: list[float], total_s: float) -> np.ndarray:
    """Number of semantic tokens of each phone, at least one, following the end times in seconds."""
    tokens = max(len(ends_s), round(total_s * SEMANTIC_RATE_HZ))
    bounds, previous = [], 0
    for index, end in enumerate(ends_s):
        left = len(ends_s) - 1 - index
        previous = min(max(round(end * SEMANTIC_RATE_HZ), previous + 1), tokens - left)
        bounds.append(previous)
    bounds[-1] = tokens
    return np.diff([0, *bounds])
