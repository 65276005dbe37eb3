"""Coarse codes -> all codebooks: rows join and leave between windows."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from bark_model import fine
from bark_model.axes import CoarseCodes, FineCodes
from bark_model.config import BarkConfig
from bark_model.engines.slots import Engine, Hardware, NonFinite, empty_request
from bark_model.networks import Network
from bark_model.outcomes import Request
from bark_model.sampling import row_sampling


class FineEngine(Engine):
    """Overlapping windows: rows join and leave between windows, each window one dispatch on a fresh buffer."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        super().__init__(network, config, hardware)
        g = config.generation
        self._window = self.program("fine window", lambda model, rows: fine.run_window(model, rows, g))

    def _compile(self, parameters: Any) -> None:
        g, request = self.config.generation, empty_request()
        row = fine.FineRow(np.zeros((g.n_coarse_codebooks, 1), np.int32), None, g)
        self._window.compile(
            parameters, self.hardware.replicas.spread(self._rows([row], [request]), self.hardware.batch_rows)
        )

    def run(self, requests: Sequence[Request], codes: Sequence[CoarseCodes]) -> list[FineCodes | NonFinite]:
        """Fine codes [8, T] of each row, in order, or NonFinite in the place of a row that has none."""
        with self.session() as parameters:
            return self._run(parameters, requests, codes)

    def _run(self, parameters: Any, requests: Sequence[Request], codes: Sequence[CoarseCodes]):
        rows = [fine.FineRow(c, r.voice, self.config.generation) for r, c in zip(requests, codes, strict=True)]
        waiting = deque(sorted(range(len(rows)), key=lambda i: -rows[i].num_windows))
        active: list[int] = []
        broken: set[int] = set()
        replicas, batch_rows = self.hardware.replicas, self.hardware.batch_rows
        capacity = replicas.count * batch_rows
        while waiting or active:
            while waiting and len(active) < capacity:
                active.append(waiting.popleft())
            batch = self._rows([rows[i] for i in active], [requests[i] for i in active])
            predicted, finite = replicas.run_rows(self._window, parameters, batch, batch_rows)
            self.meter.count(busy=len(active), slots=capacity)
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
