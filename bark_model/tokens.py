"""Range checks of tokens and audio that come from outside, before any network sees them.

JAX clamps an index out of range and turns a bad embedding into NaN without a word, so nothing unchecked gets that far.
"""

from typing import Any

import numpy as np

from bark_model.axes import Waveform
from bark_model.config import BarkConfig
from bark_model.outcomes import Request, Stage

MAX_CLIPS = 8
"""Longest given token row, in clips at the semantic cap (2 minutes for Bark): one row must not fill a device."""


class TokenError(ValueError):
    """Given tokens that cannot be used; one line with shape or value and limit."""

    def __init__(self, stage: Stage, message: str):
        super().__init__(message)
        self.stage: Stage = stage


def check_tokens(request: Request, config: BarkConfig) -> dict[str, np.ndarray]:
    """The tokens a request holds, checked, as int32: stage -> array. Raises TokenError for the first that is bad."""
    g = config.generation
    longest_semantic = MAX_CLIPS * g.max_new_tokens
    longest_codes = int(longest_semantic * g.coarse_per_semantic / g.n_coarse_codebooks)
    wanted: dict[Stage, tuple[int | None, int, int]] = {
        # stage: codebooks, classes, longest
        "semantic": (None, g.semantic_vocab_size, longest_semantic),
        "coarse": (g.n_coarse_codebooks, g.codebook_size, longest_codes),
        "fine": (g.n_fine_codebooks, g.codebook_size, longest_codes),
    }
    return {
        stage: _check(stage, _as_array(stage, getattr(request, stage), "an array of integers"), *limits)
        for stage, limits in wanted.items()
        if getattr(request, stage) is not None
    }


def _as_array(stage: Stage, given: Any, remedy: str) -> np.ndarray:
    try:
        return np.asarray(given)
    except (ValueError, TypeError, OverflowError) as error:
        raise TokenError(stage, f"{stage} is ragged, must be {remedy}") from error


def _check(stage: Stage, array: np.ndarray, codebooks: int | None, classes: int, longest: int) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise TokenError(stage, f"{stage} tokens have dtype {array.dtype}, must be integers")
    dimensions = 1 if codebooks is None else 2
    if array.ndim != dimensions or (codebooks is not None and array.shape[0] != codebooks):
        shape = "(tokens,)" if codebooks is None else f"({codebooks}, frames)"
        raise TokenError(stage, f"{stage} tokens have shape {array.shape}, must be {shape}")
    if not 1 <= array.shape[-1] <= longest:
        raise TokenError(stage, f"{stage} has {array.shape[-1]} tokens a row, must be 1 to {longest}: split it")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= classes:
        raise TokenError(stage, f"{stage} token {low if low < 0 else high} is out of range, must be 0 to {classes - 1}")
    return array.astype(np.int32)


def check_audio(audio: Waveform) -> None:
    """Raises TokenError for what the codec cannot encode."""
    audio = _as_array("audio", audio, "float and (samples,)")
    if audio.ndim != 1 or audio.dtype.kind != "f" or not audio.size:
        raise TokenError("audio", f"audio is {audio.dtype} of shape {audio.shape}, must be float and (samples,)")
    if not np.isfinite(audio).all():
        raise TokenError("audio", "audio holds NaN or infinity: repair the file")
