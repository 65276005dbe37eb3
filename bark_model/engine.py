"""Rows of any number and length through the stages on a fixed number of slots a device.

Compiled shapes never change: rows enter free slots and leave when they end. A row's tokens depend on its own
prompt, settings and key, and on the compiled shape; never on its slot, its device or its neighbours.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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


class Seats:
    """Which row sits in which slot: `row` [R, S], -1 where nobody sits."""

    def __init__(self, hardware: Hardware):
        self.row = np.full((hardware.replicas.count, hardware.slots), -1)
        self.prefill_rows = min(PREFILL_ROWS, hardware.slots)

    @property
    def occupied(self) -> np.ndarray:
        """Row numbers in slot order."""
        return self.row[self.row >= 0]

    def take(self, waiting: deque[int]) -> np.ndarray:
        """Seats waiting rows, the emptiest device first; returns which seats were taken, a boolean [R, S]."""
        taken = np.zeros(self.row.shape, bool)
        while waiting and (self.row < 0).any():
            device = int((self.row < 0).sum(axis=1).argmax())
            slot = int(np.flatnonzero(self.row[device] < 0)[0])
            self.row[device, slot] = waiting.popleft()
            taken[device, slot] = True
        return taken

    def leave(self, rows: set[int]) -> None:
        self.row[np.isin(self.row, list(rows))] = -1

    def packs(self, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Splits chosen seats, a boolean [R, S], into prefills of `prefill_rows` rows a device.

        Yields (row [R, P], slot [R, P]). A place nobody takes repeats a chosen row, bound for slot S: nowhere.
            chosen slots [1 4 5] of 8, P 2  ->  slots [1 4], then [5 8]
        """
        shape = (self.row.shape[0], self.prefill_rows)
        queues = [deque(np.flatnonzero(device)) for device in chosen]
        filler = self.row[chosen][0] if chosen.any() else -1
        while any(queues):
            row, slot = np.full(shape, filler), np.full(shape, self.row.shape[1], np.int32)
            for device, queue in enumerate(queues):
                for place in range(min(self.prefill_rows, len(queue))):
                    slot[device, place] = queue.popleft()
                    row[device, place] = self.row[device, slot[device, place]]
            yield row, slot


def _to_devices(tree: Any, shape: tuple[int, ...]) -> Any:
    """A tree of [R * P, ...] host arrays -> [R, P, ...]."""
    return jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), tree)


class SemanticEngine:
    """Continuous batching: between dispatches of decode steps, ended rows leave and waiting rows are prefilled."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        self.network, self.config, self.hardware = network, config, hardware
        g, pmap = config.generation, hardware.replicas.pmap
        self._empty = pmap(lambda _: semantic.empty_state(config, hardware.slots, hardware.dtype))
        self._enter = pmap(network.bind(lambda model, state, rows: semantic.enter(model, state, rows, g)), donate=(1,))
        self._steps = pmap(
            network.bind(lambda model, state: semantic.run_steps(model, state, g, STEPS_A_DISPATCH)), donate=(1,)
        )

    def run(self, requests: Sequence[Request], texts: Sequence[TextIds]) -> list[tuple[SemanticTokens, int]]:
        """Tokens [T] and stop code (semantic.EOS, ...) of each row, in order."""
        # Longest first: the tail, where slots stand empty, is then made of short rows.
        waiting = deque(sorted(range(len(requests)), key=lambda i: -len(texts[i])))
        seats = Seats(self.hardware)
        results: list[Any] = [None] * len(requests)
        state = self._empty(np.zeros(self.hardware.replicas.count))
        while waiting or len(seats.occupied):
            # A prefill costs the same for one row as for a full pack: wait until a device has room for a pack.
            room = (seats.row < 0).sum(axis=1).max()
            if room >= min(seats.prefill_rows, len(waiting)):
                for row, slot in seats.packs(seats.take(waiting)):
                    state = self._enter(self.network.parameters, state, self._rows(row, slot, requests, texts))
            state = self._steps(self.network.parameters, state)
            stop = np.asarray(state.stop)
            ended = np.argwhere((stop != semantic.RUNNING) & (seats.row >= 0))
            if len(ended):
                tokens, num_tokens = np.asarray(state.tokens), np.asarray(state.count)
                for device, slot in ended:
                    row = tokens[device, slot, : num_tokens[device, slot]]
                    results[seats.row[device, slot]] = (row.copy(), int(stop[device, slot]))
                    seats.row[device, slot] = -1
        return results

    def _rows(self, row: np.ndarray, slot: np.ndarray, requests, texts) -> semantic.SemanticRows:
        g = self.config.generation
        chosen = [requests[i] for i in row.flat]
        limits = [semantic.token_limit(request.sampling.semantic.max_duration_s, g) for request in chosen]
        codes = {"max_duration": semantic.MAX_DURATION, "cap": semantic.CAP}
        prompts = [
            semantic.semantic_prompt(texts[i], None if requests[i].voice is None else requests[i].voice.semantic, g)
            for i in row.flat
        ]
        rows = semantic.SemanticRows(
            prompt=np.stack(prompts),
            slot=slot.reshape(-1),
            limit=np.array([limit for limit, _ in limits], np.int32),
            limit_stop=np.array([codes[stop] for _, stop in limits], np.int32),
            sampling=row_sampling("semantic", chosen),
        )
        return _to_devices(rows, row.shape)


class CoarseEngine:
    """Sliding windows: rows join and leave between windows. Only a window that has moved is prefilled again."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        self.network, self.config, self.hardware = network, config, hardware
        pmap, g = hardware.replicas.pmap, config.generation
        # The prompts of a clip without a voice begin without history: most first windows are this short.
        self.prefill_lengths = (g.max_coarse_input_length + 1, g.coarse_prefill_length)
        self._empty = pmap(lambda _: coarse.empty_state(config, hardware.slots, hardware.dtype))
        self._enter = pmap(network.bind(coarse.enter), donate=(1,))
        self._window = pmap(
            network.bind(lambda model, state, rows: coarse.run_window(model, state, rows, config)), donate=(1,)
        )

    def run(self, requests: Sequence[Request], tokens: Sequence[SemanticTokens]) -> list[CoarseCodes | NonFinite]:
        """Coarse codes [2, T] of each row, in order, or NonFinite in the place of a row that has none."""
        rows = [coarse.CoarseRow(t, r.voice, self.config) for r, t in zip(requests, tokens, strict=True)]
        waiting = deque(sorted(range(len(rows)), key=lambda i: -rows[i].num_windows))
        seats, broken = Seats(self.hardware), set()
        state = self._empty(np.zeros(self.hardware.replicas.count))
        while waiting or len(seats.occupied):
            seats.take(waiting)
            for length in self.prefill_lengths:
                moved = [i for i in seats.occupied if not rows[i].continues and self._prefill_length(rows[i]) == length]
                for row, slot in seats.packs(np.isin(seats.row, moved)):
                    state = self._enter(self.network.parameters, state, self._prompts(row, slot, rows, length))
            state, drawn, finite = self._window(self.network.parameters, state, self._rows(seats.row, rows, requests))
            drawn, finite = np.asarray(drawn), np.asarray(finite)
            for device, slot in np.argwhere(seats.row >= 0):
                number = int(seats.row[device, slot])
                rows[number].advance(drawn[device, slot])
                if not finite[device, slot]:
                    broken.add(number)
            seats.leave({int(i) for i in seats.occupied if rows[i].done})
        return [NonFinite() if i in broken else row.codes() for i, row in enumerate(rows)]

    def _prefill_length(self, row: coarse.CoarseRow) -> int:
        """The compiled length of a row's prefill: its own alone decides, so that neighbours change no bit."""
        return min(length for length in self.prefill_lengths if row.window()[1] <= length)

    def _prompts(self, row: np.ndarray, slot: np.ndarray, rows: list[coarse.CoarseRow], length: int):
        windows = [rows[i].window() for i in row.flat]
        prompts = coarse.CoarsePrompts(
            ids=np.stack([ids[:length] for ids, _ in windows]),
            length=np.array([used for _, used in windows], np.int32),
            slot=slot.reshape(-1),
        )
        return _to_devices(prompts, row.shape)

    def _rows(self, seated: np.ndarray, rows: list[coarse.CoarseRow], requests: Sequence[Request]) -> coarse.CoarseRows:
        """What every seat draws with; an empty seat draws like row 0, and nobody looks."""
        numbers = np.maximum(seated, 0).reshape(-1)
        batch = coarse.CoarseRows(
            num_done=np.array([rows[i].num_done for i in numbers], np.int32),
            sampling=row_sampling("coarse", [requests[i] for i in numbers]),
        )
        return _to_devices(batch, seated.shape)


class FineEngine:
    """Overlapping windows: rows join and leave between windows, each window one dispatch on a fresh buffer."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        self.network, self.config, self.hardware = network, config, hardware
        g = config.generation
        self._window = hardware.replicas.pmap(network.bind(lambda model, rows: fine.run_window(model, rows, g)))

    def run(self, requests: Sequence[Request], codes: Sequence[CoarseCodes]) -> list[FineCodes | NonFinite]:
        """Fine codes [8, T] of each row, in order, or NonFinite in the place of a row that has none."""
        rows = [fine.FineRow(c, r.voice, self.config.generation) for r, c in zip(requests, codes, strict=True)]
        waiting = deque(sorted(range(len(rows)), key=lambda i: -rows[i].num_windows))
        active: list[int] = []
        broken: set[int] = set()
        replicas, slots = self.hardware.replicas, self.hardware.slots
        while waiting or active:
            while waiting and len(active) < replicas.count * slots:
                active.append(waiting.popleft())
            batch = self._rows([rows[i] for i in active], [requests[i] for i in active])
            predicted, finite = replicas.run_rows(self._window, self.network.parameters, batch, slots)
            for place, i in enumerate(active):
                rows[i].advance(predicted[place])
                if not finite[place]:
                    broken.add(i)
            active = [i for i in active if not rows[i].done]
        return [NonFinite() if i in broken else row.codes() for i, row in enumerate(rows)]

    def _rows(self, rows: Sequence[fine.FineRow], requests: Sequence[Request]) -> fine.FineRows:
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
