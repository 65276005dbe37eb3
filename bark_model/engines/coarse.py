"""Semantic tokens -> coarse codes: rows join and leave between windows."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from bark_model import coarse
from bark_model.axes import CoarseCodes, SemanticTokens
from bark_model.config import BarkConfig
from bark_model.engines.slots import Engine, Hardware, NonFinite, Seats, empty_request, to_devices
from bark_model.networks import Network
from bark_model.outcomes import Request
from bark_model.sampling import row_sampling


class CoarseEngine(Engine):
    """Sliding windows: rows join and leave between windows. Only a window that has moved is prefilled again."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        super().__init__(network, config, hardware)
        g = config.generation
        # The prompts of a clip without a voice begin without history: most first windows are this short.
        self.prefill_lengths = (g.max_coarse_input_length + 1, g.coarse_prefill_length)
        self._empty = self.empty_state("coarse slots", coarse.empty_state)
        self._enter = self.program("coarse prefill", coarse.enter, donate=(1,))
        self._window = self.program(
            f"coarse window, {g.sliding_window_len} steps",
            lambda model, state, rows: coarse.run_window(model, state, rows, config),
            donate=(1,),
        )

    def _compile(self, parameters: Any) -> None:
        state, seats, request = self._empty(), Seats(self.hardware), empty_request()
        row = coarse.CoarseRow(np.zeros(1, np.int32), None, self.config)
        for length in self.prefill_lengths:
            self._enter.compile(parameters, state, self._prompts(*seats.nobody(), [row], length))
        self._window.compile(parameters, state, self._rows(seats.row, [row], [request]))

    def run(self, requests: Sequence[Request], tokens: Sequence[SemanticTokens]) -> list[CoarseCodes | NonFinite]:
        """Coarse codes [2, T] of each row, in order, or NonFinite in the place of a row that has none."""
        with self.session() as parameters:
            return self._run(parameters, requests, tokens)

    def _run(self, parameters: Any, requests: Sequence[Request], tokens: Sequence[SemanticTokens]):
        rows = [coarse.CoarseRow(t, r.voice, self.config) for r, t in zip(requests, tokens, strict=True)]
        waiting = deque(sorted(range(len(rows)), key=lambda i: -rows[i].num_windows))
        seats, broken = Seats(self.hardware), set()
        state = self._empty()
        while waiting or len(seats.occupied):
            seats.take(waiting)
            for length in self.prefill_lengths:
                moved = [i for i in seats.occupied if not rows[i].continues and self._prefill_length(rows[i]) == length]
                for row, slot in seats.packs(np.isin(seats.row, moved)):
                    state = self._enter(parameters, state, self._prompts(row, slot, rows, length))
            state, drawn, finite = self._window(parameters, state, self._rows(seats.row, rows, requests))
            drawn, finite = np.asarray(drawn), np.asarray(finite)
            steps = drawn.shape[-1]
            due = sum(min(steps, rows[i].num_tokens - rows[i].num_done) for i in seats.occupied)
            self.meter.count(busy=due, slots=steps * self.hardware.capacity)
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
        return to_devices(prompts, row.shape)

    def _rows(self, seated: np.ndarray, rows: list[coarse.CoarseRow], requests: Sequence[Request]) -> coarse.CoarseRows:
        """What every seat draws with; an empty seat draws with row 0's settings, and nobody looks."""
        numbers = seated.reshape(-1)
        batch = coarse.CoarseRows(
            num_done=np.array([rows[i].num_done if i >= 0 else -1 for i in numbers], np.int32),
            sampling=row_sampling("coarse", [requests[max(i, 0)] for i in numbers]),
        )
        return to_devices(batch, seated.shape)
