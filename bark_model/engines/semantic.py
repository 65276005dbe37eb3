"""Text -> semantic tokens: continuous batching, many decode steps a dispatch."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from bark_model import semantic
from bark_model.axes import SemanticTokens, TextIds
from bark_model.config import BarkConfig
from bark_model.engines.slots import Engine, Hardware, Seats, empty_request, to_devices
from bark_model.networks import Network
from bark_model.outcomes import Request
from bark_model.sampling import row_sampling

STEPS_A_DISPATCH = 32
"""Semantic decode steps between two looks at which rows have ended; a row idles half of it on average."""


class SemanticEngine(Engine):
    """Continuous batching: between dispatches of decode steps, ended rows leave and waiting rows are prefilled."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        super().__init__(network, config, hardware)
        g = config.generation
        self._empty = self.empty_state("semantic slots", semantic.empty_state)
        self._enter = self.program(
            "semantic prefill", lambda model, state, rows: semantic.enter(model, state, rows, g), donate=(1,)
        )
        self._steps = self.program(
            f"semantic decode, {STEPS_A_DISPATCH} steps",
            lambda model, state: semantic.run_steps(model, state, g, STEPS_A_DISPATCH),
            donate=(1,),
        )

    def _compile(self, parameters: Any) -> None:
        state, seats, request = self._empty(), Seats(self.hardware), empty_request()
        rows = self._rows(*seats.nobody(), [request], [np.zeros(0, np.int32)])
        self._enter.compile(parameters, state, rows)
        self._steps.compile(parameters, state)

    def run(self, requests: Sequence[Request], texts: Sequence[TextIds]) -> list[tuple[SemanticTokens, int]]:
        """Tokens [T] and stop code (semantic.EOS, ...) of each row, in order."""
        with self.session() as parameters:
            return self._run(parameters, requests, texts)

    def _run(self, parameters: Any, requests: Sequence[Request], texts: Sequence[TextIds]):
        # Longest first: the tail, where slots stand empty, is then made of short rows.
        waiting = deque(sorted(range(len(requests)), key=lambda i: self._expected(requests[i], texts[i]), reverse=True))
        seats = Seats(self.hardware)
        results: list[Any] = [None] * len(requests)
        state = self._empty()
        while waiting or len(seats.occupied):
            # A prefill costs the same for one row as for a full pack: wait until a device has room for a pack.
            room = (seats.row < 0).sum(axis=1).max()
            if room >= min(seats.prefill_rows, len(waiting)):
                for row, slot in seats.packs(seats.take(waiting)):
                    state = self._enter(parameters, state, self._rows(row, slot, requests, texts))
            state, steps, busy = self._steps(parameters, state)
            stop = np.asarray(state.stop)
            # Devices run at once: all of them wait for the one that makes the most steps.
            self.meter.count(busy=np.asarray(busy).sum(), slots=np.asarray(steps).max() * self.hardware.capacity)
            ended = np.argwhere((stop != semantic.RUNNING) & (seats.row >= 0))
            if len(ended):
                tokens, num_tokens = np.asarray(state.tokens), np.asarray(state.count)
                for device, slot in ended:
                    row = tokens[device, slot, : num_tokens[device, slot]]
                    results[seats.row[device, slot]] = (row.copy(), int(stop[device, slot]))
                    seats.row[device, slot] = -1
        return results

    def _expected(self, request: Request, text: TextIds) -> tuple[int, int]:
        """How long a row may get and, of rows that may get equally long, how much they have to say."""
        return semantic.token_limit(request.sampling.semantic.max_duration_s, self.config.generation)[0], len(text)

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
        return to_devices(rows, row.shape)
