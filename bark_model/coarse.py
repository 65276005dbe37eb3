"""Semantic tokens -> the two coarse codebooks: the sliding windows (numpy) and the device step.

A window is a prompt and up to `sliding_window_len` new tokens; positions restart at 0 in each.
"""

import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from bark_model.axes import CoarseCodes, DeviceArray, SemanticTokens
from bark_model.config import BarkConfig, Generation
from bark_model.sampling import RowSampling, draw, filter_logits
from bark_model.transformer import CausalTransformer, KVCache
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
    """One row's way through its windows: `window()` is the next prompt, `advance()` takes what it drew.

    While neither the semantic part nor the coarse history has moved, a window's prompt is the last one's plus what
    was drawn since: `continues` is then true, and the KV cache of the last window is the new one's.
    """

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
        self._last_start: int | None = None  # where the last window's semantic part began; None before the first

    @property
    def num_done(self) -> int:
        return len(self.coarse) - self.coarse_history_length

    @property
    def done(self) -> bool:
        return self.num_done >= self.num_tokens

    @property
    def start(self) -> int:
        """Where the next window's semantic part begins."""
        at = self.history_length + round(self.num_done / self.constants.coarse_per_semantic)
        return max(0, at - self.constants.max_semantic_history)

    @property
    def continues(self) -> bool:
        """Whether the next window is the last one, grown by what it drew."""
        return self.start == self._last_start and len(self.coarse) <= self.constants.max_coarse_history

    def window(self) -> tuple[np.ndarray, int]:
        """The next prompt: ids [T] right-padded to coarse_prefill_length, and how many of them count.

        semantic [a b c d e f g], 3 wide behind position 4, history [p q]:
            [c d e] I [p q]      I the infer token; semantic pads fill a window that runs past the end
        """
        g = self.constants
        semantic = self.semantic[self.start :][: g.max_coarse_input_length]
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
        self._last_start = self.start
        self.coarse = np.concatenate([self.coarse, drawn[: self.num_tokens - self.num_done]])

    def codes(self) -> CoarseCodes:
        """The row's own codes [2, T], without the history."""
        return unflatten_ids(self.coarse[self.coarse_history_length :], self.constants)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CoarseState:
    """Decoding state of S slots on a device: the cache, and the last token's hidden state [S, D] and position [S]."""

    cache: KVCache
    hidden: DeviceArray
    position: DeviceArray


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CoarsePrompts:
    """Windows to prefill: ids [B, T] of which `length` [B] count; slot [B] (a number past the last slot: nowhere)."""

    ids: DeviceArray
    length: DeviceArray
    slot: DeviceArray


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CoarseRows:
    """What a window of S slots draws with; `num_done` [S] tokens were drawn before, -1 where nobody sits."""

    num_done: DeviceArray
    sampling: RowSampling


def empty_state(config: BarkConfig, slots: int, dtype: DTypeLike) -> CoarseState:
    """All slots empty: nothing in them is looked at before a prefill overwrites it."""
    g = config.generation
    positions = min(g.coarse_prefill_length + g.sliding_window_len, config.coarse.block_size)
    return CoarseState(
        cache=KVCache.empty(config.coarse, slots, positions, dtype),
        hidden=jnp.zeros((slots, config.coarse.hidden_size), jnp.float32),
        position=jnp.zeros(slots, jnp.int32),
    )


def enter(model: CausalTransformer, state: CoarseState, prompts: CoarsePrompts) -> CoarseState:
    """Prefills windows and puts each into its slot, overwriting the whole slot."""
    positions = state.cache.positions
    hidden, cache = model.prefill(model.token_embedding(prompts.ids), prompts.length, positions)
    entering = CoarseState(cache=cache, hidden=hidden, position=prompts.length - 1)
    return jax.tree.map(lambda all_rows, new: all_rows.at[prompts.slot].set(new, mode="drop"), state, entering)


def run_window(
    model: CausalTransformer, state: CoarseState, rows: CoarseRows, config: BarkConfig
) -> tuple[CoarseState, jax.Array, jax.Array]:
    """Draws `sliding_window_len` ids a row: the state, int32 [S, T], and whether all logits were finite [S].

    Codebooks alternate, two steps a loop, so that each step computes its own codebook's classes only.
    """
    g = config.generation
    first_of_odd = g.semantic_vocab_size + g.codebook_size
    # transformers leaves open what lies behind the second codebook (12048..12095 for Bark); Suno does not.
    num_odd = config.coarse.output_vocab_size - first_of_odd
    open_odd = (jnp.arange(num_odd) < g.codebook_size) | rows.sampling.transformers[:, None]

    def one(codebook: int, index: jax.Array, state: CoarseState, finite: jax.Array):
        if codebook == 0:
            logits = model.logits(state.hidden, g.semantic_vocab_size, g.codebook_size)
        else:
            logits = model.logits(state.hidden, first_of_odd, num_odd)
        finite &= jnp.isfinite(logits).all(axis=-1)
        if codebook == 1:
            logits = jnp.where(open_odd, logits, -jnp.inf)
        drawn = draw(filter_logits(logits, rows.sampling), rows.sampling, rows.num_done + index)
        token = drawn + (g.semantic_vocab_size, first_of_odd)[codebook]
        position = state.position + 1
        hidden, cache = model.step(token, position, state.cache)
        return token, CoarseState(cache=cache, hidden=hidden, position=position), finite

    def frame(number, carry):
        state, finite, tokens = carry
        for codebook in range(g.n_coarse_codebooks):
            index = number * g.n_coarse_codebooks + codebook
            token, state, finite = one(codebook, index, state, finite)
            tokens = jax.lax.dynamic_update_slice(tokens, token[:, None], (0, index))
        return state, finite, tokens

    batch = state.position.shape[0]
    # An empty seat starts at 0 again, where it makes nobody read more of the caches.
    state = replace(state, position=jnp.where(rows.num_done < 0, 0, state.position))
    start = (state, jnp.ones(batch, bool), jnp.zeros((batch, g.sliding_window_len), jnp.int32))
    state, finite, tokens = jax.lax.fori_loop(0, g.sliding_window_len // g.n_coarse_codebooks, frame, start)
    return state, tokens, finite
