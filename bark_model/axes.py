"""The one axis legend, and the array types that public signatures use.

    B  batch: rows of one call             S  slots: rows of one device's fixed batch
    T  tokens, positions or codec frames   K  codebooks
    V  vocabulary or codebook entries      L  samples of a waveform
    D  model width                         C  channels of the codec
    N  attention heads                     H  width of one head
    R  devices (replicas)

Shapes in comments, docstrings and einsum strings use these letters and no others.
"""

from typing import Any, TypeAlias

import numpy as np

TextIds: TypeAlias = np.ndarray
"""int32 [T]: tokenizer ids before Bark's text offset is added."""

SemanticTokens: TypeAlias = np.ndarray
"""int32 [T]: semantic tokens at 49.9 Hz (the checkpoint's rate), without the end token."""

CoarseCodes: TypeAlias = np.ndarray
"""int32 [2, T]: the first two EnCodec codebooks at 75 Hz, each 0..1023."""

FineCodes: TypeAlias = np.ndarray
"""int32 [8, T]: all eight EnCodec codebooks at 75 Hz, each 0..1023."""

Waveform: TypeAlias = np.ndarray
"""float32 [L]: mono audio at the checkpoint's sample rate, nominally in -1..1."""

DeviceArray: TypeAlias = Any
"""A `jax.Array`, or the host array that is about to become one: the fields of batches that travel to a device."""
