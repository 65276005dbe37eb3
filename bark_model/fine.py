"""Coarse codes -> all codebooks: the overlapping windows (numpy) and the device step.

The network is not causal: what stands right of a row's end changes its output, so every row is padded just as it
would be alone.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bark_model.axes import CoarseCodes, DeviceArray, FineCodes
from bark_model.config import Generation
from bark_model.fine_transformer import FineTransformer
from bark_model.sampling import RowSampling, draw
from bark_model.voices import Voice


class FineRow:
    """One row's way through its windows: `window()` is the next buffer, `advance()` takes what was predicted."""

    def __init__(self, coarse: CoarseCodes, voice: Voice | None, constants: Generation):
        g = self.constants = constants
        self.num_frames = coarse.shape[1]
        history = np.zeros((g.n_fine_codebooks, 0), np.int32)
        if voice is not None:
            history = voice.fine[:, -g.max_fine_history_length :]
        self.history_length = history.shape[1]
        # history [h h], coarse [a b c], window 8 (P the pad, codebook_size):
        #   row 0   [h h a b c P P P]
        #   row 2   [h h P P P P P P]
        length = max(self.history_length + self.num_frames, g.max_fine_input_length)
        self.buffer = np.full((g.n_fine_codebooks, length), g.codebook_size, np.int32)
        end = self.history_length + self.num_frames
        self.buffer[:, : self.history_length] = history
        self.buffer[: g.n_coarse_codebooks, self.history_length : end] = coarse
        beyond = self.num_frames - (g.max_fine_input_length - self.history_length)
        self.num_windows = max(0, math.ceil(beyond / g.max_fine_history_length)) + 1
        self.index = 0

    @property
    def done(self) -> bool:
        return self.index >= self.num_windows

    def _place(self) -> tuple[int, int]:
        """Where the window starts, and from where on it fills; both in the row's own positions."""
        g = self.constants
        length = self.buffer.shape[1]
        stride = self.index * g.max_fine_history_length
        start = min(stride, length - g.max_fine_input_length)
        fill = min(self.history_length + stride, length - g.max_fine_history_length)
        return start, fill

    def window(self) -> tuple[np.ndarray, int]:
        """The next buffer [K, T] and the position in it from which predictions are written."""
        start, fill = self._place()
        return self.buffer[:, start : start + self.constants.max_fine_input_length], fill - start

    def advance(self, predicted: np.ndarray) -> None:
        """Takes a predicted buffer [K, T]; only what lies behind the fill position is new."""
        start, fill = self._place()
        self.buffer[:, fill : start + self.constants.max_fine_input_length] = predicted[:, fill - start :]
        self.index += 1

    def codes(self) -> FineCodes:
        """The row's own codes [8, T], without history and padding."""
        return self.buffer[:, self.history_length : self.history_length + self.num_frames]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FineRows:
    """One window of S rows: codes [S, K, T], predictions written from `fill_from` [S] on; `index` [S] of the window."""

    codes: DeviceArray
    fill_from: DeviceArray
    index: DeviceArray
    sampling: RowSampling


def run_window(model: FineTransformer, rows: FineRows, constants: Generation) -> tuple[jax.Array, jax.Array]:
    """Predicts codebooks 2..7 one after another: codes int32 [S, K, T], and whether all logits were finite [S]."""
    g = constants
    places = jnp.arange(rows.codes.shape[-1])
    temperature = jnp.where(rows.sampling.temperature > 0, rows.sampling.temperature, 1)[:, None, None]

    def predict(codebook, carry):
        codes, finite = carry
        logits = model(codes, codebook, g.codebook_size)
        finite &= jnp.isfinite(logits).all(axis=(1, 2))
        drawn = draw(logits / temperature, rows.sampling, rows.index * g.n_fine_codebooks + codebook)
        old = jax.lax.dynamic_index_in_dim(codes, codebook, axis=1, keepdims=False)
        new = jnp.where(places >= rows.fill_from[:, None], drawn, old)
        return jax.lax.dynamic_update_index_in_dim(codes, new, codebook, axis=1), finite

    start = (rows.codes, jnp.ones(rows.codes.shape[0], bool))
    return jax.lax.fori_loop(g.n_coarse_codebooks, g.n_fine_codebooks, predict, start)
