"""Semantic tokens -> the two coarse codebooks: the sliding windows (numpy) and the device step.

A window is one fresh prompt and up to `sliding_window_len` new tokens; positions restart at 0 in each.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bark_model.axes import CoarseCodes, DeviceArray, SemanticTokens
from bark_model.config import BarkConfig, Generation
from bark_model.sampling import RowSampling, draw, filter_logits
from bark_model.transformer import CausalTransformer
from bark_model.voices import Voice


def num_coarse_tokens(num_semantic: int, constants: Generation) -> int:
    """Coarse tokens, both codebooks counted, that `num_semantic` tokens become; Suno's rounding, always even."""
    g = constants
    return round(math.floor(num_semantic * g.coarse_per_semantic / g.n_coarse_codebooks) * g.n_coarse_codebooks)


def flatten_codes(codes: CoarseCodes, constants: Generation) -> np.ndarray:
    """Codes [2, T] -> coarse ids [2 T], frame by frame:  [[a b] [c d]]  ->  [a, c + 1024, b, d + 1024] + 10000."""
    g = constants
    offsets = np.arange(codes.shape[0])[:, None] * g.codebook_size + g.semantic_vocab_size
    return (codes + offsets).T.reshape(-1).astype(np.int32)


def unflatten_ids(ids: np.ndarray, constants: Generation) -> CoarseCodes:
    """Coarse ids [2 T] -> codes [2, T]. The remainder folds back the ids transformers leaves open on odd steps."""
    g = constants
    return np.remainder(ids.reshape(-1, g.n_coarse_codebooks).T - g.semantic_vocab_size, g.codebook_size)


def voice_history(voice: Voice, constants: Generation) -> tuple[np.ndarray, np.ndarray]:
    """The tails of a voice that a clip starts from, aligned in time: semantic ids [T], coarse ids [T].

    A slice of length 0 is written [-0:] by both references and takes everything: so it does here (a voice of one
    semantic token). The last frame is dropped "for time alignment", as Bark does.
    """
    g = constants
    ratio = g.coarse_per_semantic
    flat = flatten_codes(voice.coarse, g)
    num_semantic = min(
        g.max_semantic_history, len(voice.semantic) - len(voice.semantic) % 2, math.floor(len(flat) / ratio)
    )
    num_coarse = round(num_semantic * ratio)
    return voice.semantic[-num_semantic:], flat[-num_coarse:][:-2]


class CoarseRow:
    """One row's way through its windows: `window()` is the next prompt, `advance()` takes what it drew."""

    def __init__(self, semantic: SemanticTokens, voice: Voice | None, config: BarkConfig):
        g = self.constants = config.generation
        none = np.zeros(0, np.int32)
        semantic_history, coarse_history = (none, none) if voice is None else voice_history(voice, g)
        self.history_length = len(semantic_history)
        self.semantic = np.concatenate([semantic_history, semantic]).astype(np.int32)
        self.coarse_history_length = len(coarse_history)
        self.coarse = coarse_history.astype(np.int32)
        self.num_tokens = num_coarse_tokens(len(semantic), g)
        self.num_windows = math.ceil(self.num_tokens / g.sliding_window_len)

    @property
    def num_done(self) -> int:
        return len(self.coarse) - self.coarse_history_length

    @property
    def done(self) -> bool:
        return self.num_done >= self.num_tokens

    def window(self) -> tuple[np.ndarray, int]:
        """The next prompt: ids [T] right-padded to coarse_prefill_length, and how many of them count.

        semantic [a b c d e f g], 3 wide behind position 4, history [p q]:
            [c d e] I [p q]      I the infer token; semantic pads fill a window that runs past the end
        """
        g = self.constants
        at = self.history_length + round(self.num_done / g.coarse_per_semantic)
        semantic = self.semantic[max(0, at - g.max_semantic_history) :][: g.max_coarse_input_length]
        ids = np.zeros(g.coarse_prefill_length, np.int32)
        ids[: g.max_coarse_input_length] = g.coarse_semantic_pad_token
        ids[: len(semantic)] = semantic
        ids[g.max_coarse_input_length] = g.coarse_infer_token
        history = self.coarse[-g.max_coarse_history :]
        length = g.max_coarse_input_length + 1 + len(history)
        ids[g.max_coarse_input_length + 1 : length] = history
        return ids, length

    def advance(self, drawn: np.ndarray) -> None:
        """Appends a window's ids [T]; what lies behind the row's end is dropped."""
        self.coarse = np.concatenate([self.coarse, drawn[: self.num_tokens - self.num_done]])

    def codes(self) -> CoarseCodes:
        """The row's own codes [2, T], without the history."""
        return unflatten_ids(self.coarse[self.coarse_history_length :], self.constants)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CoarseRows:
    """One window of S rows: ids [S, T] of which `length` [S] count; `num_done` [S] tokens were drawn before."""

    ids: DeviceArray
    length: DeviceArray
    num_done: DeviceArray
    sampling: RowSampling


def run_window(model: CausalTransformer, rows: CoarseRows, config: BarkConfig) -> tuple[jax.Array, jax.Array]:
    """Prefills a window and draws `sliding_window_len` ids a row: int32 [S, T], and whether all logits were finite [S].

    Codebooks alternate, two steps a loop, so that each step computes its own codebook's classes only.
    """
    g = config.generation
    positions = min(g.coarse_prefill_length + g.sliding_window_len, config.coarse.block_size)
    hidden, cache = model.prefill(model.token_embedding(rows.ids), rows.length, positions)
    first_of_odd = g.semantic_vocab_size + g.codebook_size
    # transformers leaves open what lies behind the second codebook (12048..12095 for Bark); Suno does not.
    num_odd = config.coarse.output_vocab_size - first_of_odd
    open_odd = (jnp.arange(num_odd) < g.codebook_size) | rows.sampling.transformers[:, None]

    def one(codebook: int, index: jax.Array, hidden, cache, finite):
        if codebook == 0:
            logits = model.logits(hidden, g.semantic_vocab_size, g.codebook_size)
            finite &= jnp.isfinite(logits).all(axis=-1)
        else:
            logits = model.logits(hidden, first_of_odd, num_odd)
            finite &= jnp.isfinite(logits).all(axis=-1)
            logits = jnp.where(open_odd, logits, -jnp.inf)
        drawn = draw(filter_logits(logits, rows.sampling), rows.sampling, rows.num_done + index)
        token = drawn + (g.semantic_vocab_size, first_of_odd)[codebook]
        hidden, cache = model.step(token, rows.length + index, cache)
        return token, hidden, cache, finite

    def frame(number, carry):
        hidden, cache, finite, tokens = carry
        for codebook in range(g.n_coarse_codebooks):
            index = number * g.n_coarse_codebooks + codebook
            token, hidden, cache, finite = one(codebook, index, hidden, cache, finite)
            tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, index))
        return hidden, cache, finite, tokens

    batch = rows.length.shape[0]
    start = (hidden, cache, jnp.ones(batch, bool), jnp.zeros((batch, g.sliding_window_len), jnp.int32))
    num_frames = g.sliding_window_len // g.n_coarse_codebooks
    _, _, finite, tokens = jax.lax.fori_loop(0, num_frames, frame, start)
    return tokens, finite
