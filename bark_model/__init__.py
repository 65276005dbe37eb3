"""Bark in JAX: text -> semantic tokens -> coarse codes -> fine codes -> audio, for batches on every local device.

    from bark_model import Bark, Request
    bark = Bark.load("demo", slots=8)
    [result] = bark.synthesize([Request(id="hello", text="Hello there.")])
    result.audio, result.stop_reason

A library in its own right: it needs jax, flax, numpy, safetensors and tokenizers, and knows nothing of the pipeline.
Settings, requests, voices and checkpoints are free of jax; `Bark` loads it when it is first named.
"""

from typing import TYPE_CHECKING

from bark_model.checkpoint import Checkpoint, CheckpointError
from bark_model.outcomes import Failure, Request, Result
from bark_model.settings import CoarseSampling, FineSampling, Sampling, SemanticSampling, SettingError
from bark_model.voices import Voice, VoiceError, load_voice, voice_npz

if TYPE_CHECKING:
    from bark_model.bark import Bark

__all__ = [
    "Bark",
    "Checkpoint",
    "CheckpointError",
    "CoarseSampling",
    "Failure",
    "FineSampling",
    "Request",
    "Result",
    "Sampling",
    "SemanticSampling",
    "SettingError",
    "Voice",
    "VoiceError",
    "load_voice",
    "voice_npz",
]


def __getattr__(name: str):
    if name == "Bark":
        from bark_model.bark import Bark

        return Bark
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
