"""Text -> semantic tokens: the prompt (numpy) and the device steps.

The prompt is always the same number of positions, pads included, and pads are attended: Bark has no attention mask.
"""

import math
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from bark_model.axes import DeviceArray, SemanticTokens, TextIds
from bark_model.config import BarkConfig, Generation
from bark_model.outcomes import StopReason
from bark_model.sampling import RowSampling, draw, end_probability, filter_logits
from bark_model.transformer import CausalTransformer, KVCache

RUNNING, EOS, MIN_EOS_P, MAX_DURATION, CAP, NON_FINITE = range(6)
STOP_REASONS: dict[int, StopReason] = {EOS: "eos", MIN_EOS_P: "min_eos_p", MAX_DURATION: "max_duration", CAP: "cap"}


def semantic_prompt(text: TextIds, history: SemanticTokens | None, constants: Generation) -> np.ndarray:
    """The prompt of one row, int32 [2, T]: text ids above, the voice's last semantic tokens below.

    T is max_input_semantic_length; the two rows are embedded and summed.
        text  [a b], history [s t u], T 4  ->  [a b P P]    P the text pad, E the semantic pad (the end token)
                                               [s t u E]
    """
    g = constants
    width = g.max_input_semantic_length
    prompt = np.empty((2, width), np.int32)
    prompt[0], prompt[1] = g.text_pad_token, g.semantic_pad_token
    prompt[0, : len(text)] = text[:width] + g.text_encoding_offset
    if history is not None:
        tail = history[-width:]
        prompt[1, : len(tail)] = tail
    return prompt


def token_limit(max_duration_s: float | None, constants: Generation) -> tuple[int, StopReason]:
    """Most tokens of a row, and why it would stop there.

    Suno appends a token and then stops if the tokens so far last longer than the limit, so one token is always made.
    """
    g = constants
    if max_duration_s is None:
        return g.max_new_tokens, "cap"
    tokens = max(1, math.floor(max_duration_s * g.semantic_rate_hz))
    while tokens / g.semantic_rate_hz <= max_duration_s:
        tokens += 1
    return (tokens, "max_duration") if tokens <= g.max_new_tokens else (g.max_new_tokens, "cap")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SemanticState:
    """Decoding state of S slots on one device. An empty slot is a row whose `stop` is not RUNNING.

    logits float32 [S, V] of the next token; count [S] tokens so far; tokens [S, T]; stop [S] one of the codes above;
    limit [S] and limit_stop [S] where and why the row ends at the latest.
    """

    cache: KVCache
    logits: DeviceArray
    count: DeviceArray
    tokens: DeviceArray
    stop: DeviceArray
    limit: DeviceArray
    limit_stop: DeviceArray
    sampling: RowSampling


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SemanticRows:
    """Rows about to enter: prompt [B, 2, T]; slot [B] where to (a number past the last slot: nowhere)."""

    prompt: DeviceArray
    slot: DeviceArray
    limit: DeviceArray
    limit_stop: DeviceArray
    sampling: RowSampling


def empty_state(config: BarkConfig, slots: int, dtype: DTypeLike) -> SemanticState:
    """All slots empty."""
    g = config.generation
    positions = g.semantic_prefill_length + g.max_new_tokens - 1
    return SemanticState(
        cache=KVCache.empty(config.semantic, slots, positions, dtype),
        logits=jnp.zeros((slots, g.semantic_pad_token + 1), jnp.float32),
        count=jnp.zeros(slots, jnp.int32),
        tokens=jnp.zeros((slots, g.max_new_tokens), jnp.int32),
        stop=jnp.full(slots, EOS, jnp.int32),
        limit=jnp.ones(slots, jnp.int32),
        limit_stop=jnp.full(slots, CAP, jnp.int32),
        sampling=RowSampling.empty(slots),
    )


def _next_logits(model: CausalTransformer, hidden: jax.Array, g: Generation) -> jax.Array:
    """Logits [S, V] of the classes up to the end token; what lies between the vocabulary and it is cut."""
    logits = model.logits(hidden, 0, g.semantic_pad_token + 1)
    classes = jnp.arange(g.semantic_pad_token + 1)
    return jnp.where((classes < g.semantic_vocab_size) | (classes == g.semantic_pad_token), logits, -jnp.inf)


def enter(model: CausalTransformer, state: SemanticState, rows: SemanticRows, constants: Generation) -> SemanticState:
    """Prefills rows and puts each into its slot, overwriting the whole slot."""
    g = constants
    merged = model.token_embedding(rows.prompt[:, 0]) + model.token_embedding(rows.prompt[:, 1])
    infer = model.token_embedding(jnp.full((rows.slot.shape[0], 1), g.semantic_infer_token))
    lengths = jnp.full(rows.slot.shape, g.semantic_prefill_length)
    positions = state.cache.positions
    hidden, cache = model.prefill(jnp.concatenate([merged, infer], axis=1), lengths, positions)
    entering = SemanticState(
        cache=cache,
        logits=_next_logits(model, hidden, g),
        count=jnp.zeros_like(rows.limit),
        tokens=jnp.zeros((rows.slot.shape[0], state.tokens.shape[1]), jnp.int32),
        stop=jnp.full_like(rows.limit, RUNNING),
        limit=rows.limit,
        limit_stop=rows.limit_stop,
        sampling=rows.sampling,
    )
    return jax.tree.map(lambda all_rows, new: all_rows.at[rows.slot].set(new, mode="drop"), state, entering)


def step(model: CausalTransformer, state: SemanticState, constants: Generation) -> SemanticState:
    """Draws a token a row from its logits, decides whether the row ends, and runs the decode step."""
    g = constants
    end = g.semantic_pad_token
    filtered = filter_logits(state.logits, state.sampling)
    token = draw(filtered, state.sampling, state.count)
    p_end = end_probability(state.logits, filtered, state.sampling, end)
    threshold = state.sampling.min_eos_p
    by_probability = jnp.where(state.sampling.transformers, p_end > threshold, p_end >= threshold)

    running = state.stop == RUNNING
    finite = jnp.isfinite(state.logits[:, : g.semantic_vocab_size]).all(axis=-1)
    stop = jnp.where(by_probability, MIN_EOS_P, RUNNING)
    stop = jnp.where(token == end, EOS, stop)
    stop = jnp.where(finite, stop, NON_FINITE)
    appended = running & (stop == RUNNING)
    token = jnp.where(appended, token, 0)
    row = jnp.arange(token.shape[0])
    place = jnp.minimum(state.count, state.tokens.shape[1] - 1)
    tokens = state.tokens.at[row, place].set(jnp.where(appended, token, state.tokens[row, place]))
    count = state.count + appended
    stop = jnp.where(appended & (count >= state.limit), state.limit_stop, stop)
    stop = jnp.where(running, stop, state.stop)

    # The token drawn as number n (from 0) stands behind the prompt: position 257 + n for Bark. A row that has ended
    # steps on the spot at 0, where it makes nobody read more of the caches.
    position = jnp.where(running, g.semantic_prefill_length + state.count, 0)
    hidden, cache = model.step(token, position, state.cache)
    return replace(state, cache=cache, logits=_next_logits(model, hidden, g), count=count, tokens=tokens, stop=stop)


def run_steps(
    model: CausalTransformer, state: SemanticState, constants: Generation, num_steps: int
) -> tuple[SemanticState, jax.Array, jax.Array]:
    """Up to `num_steps` steps, fewer when every row has ended first.

    Returns the state, how many steps it were, and for how many of these slot-steps a row was running.
    """

    def unfinished(carry):
        state, index, _ = carry
        return (index < num_steps) & jnp.any(state.stop == RUNNING)

    def one(carry):
        state, index, busy = carry
        return step(model, state, constants), index + 1, busy + jnp.sum(state.stop == RUNNING)

    return jax.lax.while_loop(unfinished, one, (state, jnp.int32(0), jnp.int32(0)))
