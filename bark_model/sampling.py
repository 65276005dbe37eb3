"""Logits -> token. Sees no model: a row's settings and its PRNG key are all it knows.

Every row of a batch has settings and a key of its own, so that a row's tokens depend on nothing else.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bark_model.axes import DeviceArray
from bark_model.outcomes import Request, Stage

NO_TOP_K = 2**30
NO_TOP_P = 2.0
NEVER_BY_PROBABILITY = 2.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowSampling:
    """The sampling settings of S rows; numbers that switch a filter off stand in for None.

    key_data uint32 [S, 2]: the row's threefry key. transformers bool [S]: whose filter order and end rule.
    """

    key_data: DeviceArray
    temperature: DeviceArray
    top_k: DeviceArray
    top_p: DeviceArray
    min_eos_p: DeviceArray
    transformers: DeviceArray

    @classmethod
    def empty(cls, slots: int) -> "RowSampling":
        """Greedy settings for slots nobody sits in."""
        return cls(
            key_data=jnp.zeros((slots, 2), jnp.uint32),
            temperature=jnp.zeros(slots, jnp.float32),
            top_k=jnp.full(slots, NO_TOP_K, jnp.int32),
            top_p=jnp.full(slots, NO_TOP_P, jnp.float32),
            min_eos_p=jnp.full(slots, NEVER_BY_PROBABILITY, jnp.float32),
            transformers=jnp.zeros(slots, bool),
        )


def key_data(seed: int, row_id: str, stage: str, attempt: int) -> np.ndarray:
    """The PRNG key of a row, uint32 [2], from the row's identity alone: never from worker, slot or order.

    The parts are length-prefixed, so that no two identities spell the same bytes.
    """
    parts = [str(seed), row_id, stage, str(attempt)]
    spelled = b"".join(len(p := part.encode("utf-8", "surrogatepass")).to_bytes(4, "big") + p for part in parts)
    return np.frombuffer(hashlib.sha256(spelled).digest()[:8], ">u4").astype(np.uint32)


def row_sampling(stage: Stage, requests: Sequence[Request]) -> RowSampling:
    """The settings of one stage for S requests, as host arrays [S, ...]."""
    settings = [getattr(request.sampling, stage) for request in requests]

    def column(name: str, off: float, dtype) -> np.ndarray:
        values = [getattr(setting, name, None) for setting in settings]
        return np.array([off if value is None else value for value in values], dtype)

    keys = [key_data(request.seed, request.id, stage, request.attempt) for request in requests]
    transformers = np.array([request.sampling.compat == "transformers" for request in requests])
    temperature = column("temperature", 0, np.float32)
    if stage == "fine":
        temperature = np.where(transformers & (temperature == 1), np.float32(0), temperature)  # HF: 1 means argmax
    return RowSampling(
        key_data=np.stack(keys),
        temperature=temperature,
        top_k=column("top_k", NO_TOP_K, np.int32),
        top_p=column("top_p", NO_TOP_P, np.float32),
        min_eos_p=column("min_eos_p", NEVER_BY_PROBABILITY, np.float32),
        transformers=transformers,
    )


def _kept_threshold(x: jax.Array, row: RowSampling) -> jax.Array:
    """The smallest logit that top_k and top_p keep, [S, 1]; ties with it are kept, as in both references.

    Suno measures top_p over all classes, then applies top_k; transformers measures top_p over what top_k kept.
    Both keep a class while the probability before it is within top_p:
        p  [.5 .3 .2], top_p .6:  mass before  [0 .5 .8]  ->  keep [1 1 0]
    """
    descending = -jnp.sort(-x, axis=-1)
    kth = jnp.take_along_axis(descending, jnp.minimum(row.top_k, x.shape[-1])[:, None] - 1, axis=-1)
    in_top_k = descending >= kth
    measured = jnp.where(in_top_k | ~row.transformers[:, None], descending, -jnp.inf)
    probabilities = jax.nn.softmax(measured, axis=-1)
    mass_before = jnp.cumsum(probabilities, axis=-1) - probabilities
    top_p = row.top_p[:, None]
    in_top_p = jnp.where(row.transformers[:, None], mass_before < top_p, mass_before <= top_p)
    in_top_p = in_top_p.at[:, 0].set(True)
    return jnp.min(jnp.where(in_top_k & in_top_p, descending, jnp.inf), axis=-1, keepdims=True)


def filter_logits(logits: jax.Array, row: RowSampling) -> jax.Array:
    """Logits [S, V] after temperature and filters, -inf where a class is cut; softmax of it is what is drawn from.

    Rows of temperature 0 are left at temperature 1. Rows without a filter never depend on rows with one.
    """
    temperature = jnp.where(row.temperature > 0, row.temperature, 1)[:, None]
    transformers = row.transformers[:, None]
    x = jnp.where(transformers, logits / temperature, logits)
    filtered = (row.top_k < logits.shape[-1]) | (row.top_p < 1)
    lowest = jnp.full((x.shape[0], 1), -jnp.inf)
    threshold = jax.lax.cond(jnp.any(filtered), lambda: _kept_threshold(x, row), lambda: lowest)
    x = jnp.where(x >= jnp.where(filtered[:, None], threshold, lowest), x, -jnp.inf)
    return jnp.where(transformers, x, x / temperature)


def draw(filtered: jax.Array, row: RowSampling, index: jax.Array) -> jax.Array:
    """Draws from filtered logits [S, V] or [S, T, V], a class each: int32 [S] or [S, T].

    `index` [S] is the number of the draw within the row: it is folded into the row's key. Temperature 0 is argmax.
    """
    best = jnp.argmax(filtered, axis=-1)
    hot = (row.temperature > 0).reshape(-1, *(1,) * (best.ndim - 1))

    def sampled() -> jax.Array:
        keys = jax.vmap(lambda data, i: jax.random.fold_in(jax.random.wrap_key_data(data), i))(row.key_data, index)
        noise = jax.vmap(lambda key: jax.random.gumbel(key, filtered.shape[1:]))(keys)
        return jnp.where(hot, jnp.argmax(filtered + noise, axis=-1), best)

    return jax.lax.cond(jnp.any(hot), sampled, lambda: best).astype(jnp.int32)


def end_probability(logits: jax.Array, filtered: jax.Array, row: RowSampling, end_class: int) -> jax.Array:
    """P(end) as each reference measures it before comparing with min_eos_p: float32 [S].

    Suno: of the distribution drawn from (at temperature 0 all mass is on the argmax). transformers: of raw logits.
    """
    at_zero = (jnp.argmax(filtered, axis=-1) == end_class).astype(jnp.float32)
    suno = jnp.where(row.temperature > 0, jax.nn.softmax(filtered, axis=-1)[:, end_class], at_zero)
    return jnp.where(row.transformers, jax.nn.softmax(logits, axis=-1)[:, end_class], suno)
