"""Rows of any number and length through the stages on a fixed number of slots a device.

Compiled shapes never change: rows enter free slots and leave when they end. A row's tokens depend on its own
prompt, settings and key, and on the compiled shape; never on its slot, its device or its neighbours.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from jax.typing import DTypeLike

from bark_model import coarse, fine, semantic
from bark_model.axes import CoarseCodes, FineCodes, SemanticTokens, TextIds, Waveform
from bark_model.config import BarkConfig
from bark_model.encodec import codec
from bark_model.networks import Network
from bark_model.outcomes import Request, Stage
from bark_model.replicated import Replicas
from bark_model.sampling import row_sampling

STEPS_A_DISPATCH = 32
"""Semantic decode steps between two looks at which rows have ended; a row idles half of it on average."""
PREFILL_ROWS = 4
"""Rows a device prefills together: small, because slots come free one by one."""


class NonFinite(Exception):
    """A network gave NaN or infinity for a row; its tokens are not to be used."""


@dataclass(frozen=True)
class Hardware:
    """Where a stage runs: devices, rows a device, and the dtype of weights and caches."""

    replicas: Replicas
    slots: int
    dtype: DTypeLike


class SemanticEngine:
    """Continuous batching: between dispatches of decode steps, ended rows leave and waiting rows are prefilled."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        self.network, self.config, self.hardware = network, config, hardware
        g, pmap = config.generation, hardware.replicas.pmap
        self.prefill_rows = min(PREFILL_ROWS, hardware.slots)
        self._empty = pmap(lambda _: semantic.empty_state(config, hardware.slots, hardware.dtype))
        self._enter = pmap(network.bind(lambda model, state, rows: semantic.enter(model, state, rows, g)), donate=(1,))
        self._steps = pmap(
            network.bind(lambda model, state: semantic.run_steps(model, state, g, STEPS_A_DISPATCH)), donate=(1,)
        )

    def run(self, requests: Sequence[Request], texts: Sequence[TextIds]) -> list[tuple[SemanticTokens, int]]:
        """Tokens [T] and stop code (semantic.EOS, ...) of each row, in order."""
        count, slots = self.hardware.replicas.count, self.hardware.slots
        # Longest first: the tail, where slots stand empty, is then made of short rows.
        waiting = deque(sorted(range(len(requests)), key=lambda i: -len(texts[i])))
        seats = np.full((count, slots), -1)
        results: list[Any] = [None] * len(requests)
        state = self._empty(np.zeros(count))
        while waiting or (seats >= 0).any():
            for entering in self._admit(seats, waiting):
                state = self._enter(self.network.parameters, state, self._rows(entering, seats, requests, texts))
            state = self._steps(self.network.parameters, state)
            stop = np.asarray(state.stop)
            ended = np.argwhere((stop != semantic.RUNNING) & (seats >= 0))
            if len(ended):
                tokens, num_tokens = np.asarray(state.tokens), np.asarray(state.count)
                for device, slot in ended:
                    row = tokens[device, slot, : num_tokens[device, slot]]
                    results[seats[device, slot]] = (row.copy(), int(stop[device, slot]))
                    seats[device, slot] = -1
        return results

    def _admit(self, seats: np.ndarray, waiting: deque[int]):
        """Seats waiting rows; yields a boolean [R, S] of those seated for each prefill that is worth its cost."""
        while waiting:
            free = (seats < 0).sum(axis=1)
            if free.max() < min(self.prefill_rows, len(waiting)):
                return
            seated = np.zeros(seats.shape, bool)
            for _ in range(self.prefill_rows):
                for device in np.argsort(-(seats < 0).sum(axis=1), kind="stable"):
                    empty = np.flatnonzero(seats[device] < 0)
                    if waiting and len(empty) and seated[device].sum() < self.prefill_rows:
                        seats[device, empty[0]] = waiting.popleft()
                        seated[device, empty[0]] = True
            yield seated

    def _rows(self, seated: np.ndarray, seats: np.ndarray, requests, texts) -> semantic.SemanticRows:
        """The rows of one prefill, [R, prefill_rows, ...]; places nobody takes hold row 0 bound for no slot."""
        shape = (seats.shape[0], self.prefill_rows)
        who, slot = np.zeros(shape, int), np.full(shape, seats.shape[1], np.int32)
        for device in range(shape[0]):
            taken = np.flatnonzero(seated[device])
            slot[device, : len(taken)] = taken
            who[device, : len(taken)] = seats[device, taken]
        g = self.config.generation
        chosen = [requests[i] for i in who.flat]
        limits = [semantic.token_limit(request.sampling.semantic.max_duration_s, g) for request in chosen]
        codes = {"max_duration": semantic.MAX_DURATION, "cap": semantic.CAP}
        prompts = [
            semantic.semantic_prompt(texts[i], None if requests[i].voice is None else requests[i].voice.semantic, g)
            for i in who.flat
        ]
        rows = semantic.SemanticRows(
            prompt=np.stack(prompts),
            slot=slot.reshape(-1),
            limit=np.array([limit for limit, _ in limits], np.int32),
            limit_stop=np.array([codes[stop] for _, stop in limits], np.int32),
            sampling=row_sampling("semantic", chosen),
        )
        return jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), rows)


class WindowRow(Protocol):
    """A row that goes through windows of one shape, one after the other."""

    @property
    def num_windows(self) -> int: ...

    @property
    def done(self) -> bool: ...

    def advance(self, drawn: np.ndarray) -> None: ...

    def codes(self) -> np.ndarray: ...


class WindowEngine(ABC):
    """Coarse and fine alike: rows join and leave between windows, each window one dispatch on fresh prompts."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        self.network, self.config, self.hardware = network, config, hardware
        self._window = hardware.replicas.pmap(network.bind(self._run_window))

    @abstractmethod
    def _run_window(self, model: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        """The device function: what a window draws [S, ...], and whether its logits were finite [S]."""

    @abstractmethod
    def _row(self, request: Request, tokens: np.ndarray) -> WindowRow:
        """The host side of one row."""

    @abstractmethod
    def _batch(self, rows: Sequence[Any], requests: Sequence[Request]) -> Any:
        """The next window of each row, as host arrays [B, ...]."""

    def run(self, requests: Sequence[Request], tokens: Sequence[np.ndarray]) -> list[np.ndarray | NonFinite]:
        """Codes [K, T] of each row, in order, or NonFinite in the place of a row that has none."""
        rows = [self._row(request, given) for request, given in zip(requests, tokens, strict=True)]
        # Longest first: the tail, where slots stand empty, is then made of short rows.
        waiting = deque(sorted(range(len(rows)), key=lambda i: -rows[i].num_windows))
        active: list[int] = []
        broken: set[int] = set()
        replicas, slots = self.hardware.replicas, self.hardware.slots
        while waiting or active:
            while waiting and len(active) < replicas.count * slots:
                active.append(waiting.popleft())
            batch = self._batch([rows[i] for i in active], [requests[i] for i in active])
            drawn, finite = replicas.run_rows(self._window, self.network.parameters, batch, slots)
            for place, i in enumerate(active):
                rows[i].advance(drawn[place])
            broken.update(i for place, i in enumerate(active) if not finite[place])
            active = [i for i in active if not rows[i].done]
        return [NonFinite() if i in broken else row.codes() for i, row in enumerate(rows)]


class CoarseEngine(WindowEngine):
    """Semantic tokens [T] -> coarse codes [2, T]."""

    def _run_window(self, model, batch: coarse.CoarseRows):
        return coarse.run_window(model, batch, self.config)

    def _row(self, request: Request, tokens: SemanticTokens) -> coarse.CoarseRow:
        return coarse.CoarseRow(tokens, request.voice, self.config)

    def _batch(self, rows: Sequence[coarse.CoarseRow], requests: Sequence[Request]) -> coarse.CoarseRows:
        prompts = [row.window() for row in rows]
        return coarse.CoarseRows(
            ids=np.stack([ids for ids, _ in prompts]),
            length=np.array([length for _, length in prompts], np.int32),
            num_done=np.array([row.num_done for row in rows], np.int32),
            sampling=row_sampling("coarse", requests),
        )


class FineEngine(WindowEngine):
    """Coarse codes [2, T] -> fine codes [8, T]."""

    def _run_window(self, model, batch: fine.FineRows):
        return fine.run_window(model, batch, self.config.generation)

    def _row(self, request: Request, tokens: CoarseCodes) -> fine.FineRow:
        return fine.FineRow(tokens, request.voice, self.config.generation)

    def _batch(self, rows: Sequence[fine.FineRow], requests: Sequence[Request]) -> fine.FineRows:
        buffers = [row.window() for row in rows]
        return fine.FineRows(
            codes=np.stack([buffer for buffer, _ in buffers]),
            fill_from=np.array([fill for _, fill in buffers], np.int32),
            index=np.array([row.index for row in rows], np.int32),
            sampling=row_sampling("fine", requests),
        )


def bucket(length: int, smallest: int = 128) -> int:
    """The compiled length that holds `length`: 128, 192, 256, 384, 512, 768, ...: at most half is padding."""
    size = smallest
    while True:
        for candidate in (size, size + size // 2):
            if length <= candidate:
                return candidate
        size *= 2


class CodecEngine:
    """Rows of one length bucket run together; a row's bucket is its own length's, so neighbours change nothing."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        self.network, self.config, self.hardware = network, config, hardware
        pmap = hardware.replicas.pmap
        num_codebooks = config.generation.n_fine_codebooks
        self._decode = pmap(network.bind(lambda model, rows: codec.decode(model, *rows)))
        self._encode = pmap(network.bind(lambda model, rows: codec.encode(model, *rows, num_codebooks=num_codebooks)))

    def decode(self, codes: Sequence[FineCodes]) -> list[Waveform | NonFinite]:
        """[K, T] codes -> float32 [L] audio, L = T * samples a frame."""
        samples = self.config.codec.hop_length
        rows = self._by_bucket(self._decode, codes, [c.shape[-1] for c in codes], unit=1)
        audio = [row[: c.shape[-1] * samples] for row, c in zip(rows, codes, strict=True)]
        return [row if np.isfinite(row).all() else NonFinite() for row in audio]

    def encode(self, audio: Sequence[Waveform]) -> list[FineCodes]:
        """float32 [L] audio at the checkpoint's sample rate -> codes [K, T], T = ceil(L / samples a frame)."""
        samples = self.config.codec.hop_length
        rows = self._by_bucket(self._encode, audio, [len(a) for a in audio], unit=samples)
        return [row[:, : -(-len(a) // samples)] for row, a in zip(rows, audio, strict=True)]

    def _by_bucket(self, mapped: Callable, arrays: Sequence[np.ndarray], lengths: list[int], unit: int) -> list:
        """Pads rows to their bucket of frames, runs each bucket in batches, returns rows in order."""
        buckets: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            buckets.setdefault(bucket(-(-length // unit)) * unit, []).append(i)
        results: list[Any] = [None] * len(arrays)
        capacity = self.hardware.replicas.count * self.hardware.slots
        for width, members in sorted(buckets.items()):
            for first in range(0, len(members), capacity):
                chosen = members[first : first + capacity]
                padded = np.stack([_pad_right(arrays[i], width) for i in chosen])
                batch = (padded, np.array([lengths[i] for i in chosen], np.int32))
                done = self.hardware.replicas.run_rows(mapped, self.network.parameters, batch, self.hardware.slots)
                for i, row in zip(chosen, done, strict=True):
                    results[i] = row
        return results


def _pad_right(array: np.ndarray, width: int) -> np.ndarray:
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, width - array.shape[-1])])


ENGINES: dict[Stage, tuple[str, type]] = {
    "semantic": ("semantic", SemanticEngine),
    "coarse": ("coarse", CoarseEngine),
    "fine": ("fine", FineEngine),
    "audio": ("codec", CodecEngine),
}
"""Stage -> the network it runs and the engine that runs it."""
