"""What every engine is made of: the hardware it runs on, its seats, its programs and its meter."""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from bark_model import cpu_kernels
from bark_model.config import BarkConfig
from bark_model.engine_stats import Compiled, Meter
from bark_model.networks import Network
from bark_model.outcomes import Request
from bark_model.replicated import Program, Replicas

PREFILL_ROWS = 4
"""Rows an accelerator prefills together: few, because slots come free one by one."""


class NonFinite(Exception):
    """A network gave NaN or infinity for a row; its tokens are not to be used."""


@dataclass(frozen=True)
class Hardware:
    """Where a stage runs: devices, rows a device, and the dtype of weights and caches."""

    replicas: Replicas
    slots: int
    dtype: DTypeLike

    @property
    def capacity(self) -> int:
        return self.replicas.count * self.slots

    @property
    def note(self) -> str:
        """What users should know of this machine; empty if nothing."""
        return cpu_kernels.note()

    @property
    def prefill_rows(self) -> int:
        """Rows a device prefills together."""
        return min(PREFILL_ROWS, self.batch_rows)

    @property
    def batch_rows(self) -> int:
        """Rows a device takes through a fine window or the codec together; one already keeps all of a CPU busy."""
        return 1 if self.replicas.devices[0].platform == "cpu" else self.slots


class Engine:
    """One stage's network on the devices. A subclass compiles its programs with `program` and runs rows with them."""

    def __init__(self, network: Network, config: BarkConfig, hardware: Hardware):
        self.network, self.config, self.hardware = network, config, hardware
        self.meter = Meter()
        self._programs: list[Program] = []

    def program(self, name: str, function: Callable, *, donate: tuple[int, ...] = ()) -> Program:
        """`function(module, *arrays)` as a program of (parameters, *arrays [R, ...])."""
        program = self.hardware.replicas.program(name, self.network.bind(function), donate=donate)
        self._programs.append(program)
        return program

    def empty_state(self, name: str, make: Callable) -> Callable[[], Any]:
        """A program without arguments that makes a stage's empty slots on every device."""
        hardware = self.hardware
        program = hardware.replicas.program(name, lambda _: make(self.config, hardware.slots, hardware.dtype))
        self._programs.append(program)
        return lambda: program(np.zeros(hardware.replicas.count))

    @contextmanager
    def session(self) -> Iterator[Any]:
        """The network's parameters on the devices, and the clock running."""
        with self.network.on_devices() as parameters, self.meter.running():
            yield parameters

    def warm_up(self) -> list[Compiled]:
        """Compiles what the stage will run, without running it; returns all that was ever compiled here."""
        with self.network.on_devices() as parameters:
            self._compile(parameters)
        return [compiled for program in self._programs for compiled in program.compiled]

    @abstractmethod
    def _compile(self, parameters: Any) -> None:
        """Compiles every program at every shape."""


def empty_request() -> Request:
    """A request to compile with: nothing of it is ever run."""
    return Request(id="")


class Seats:
    """Which row sits in which slot: `row` [R, S], -1 where nobody sits."""

    def __init__(self, hardware: Hardware):
        self.row = np.full((hardware.replicas.count, hardware.slots), -1)
        self.prefill_rows = hardware.prefill_rows

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

    def nobody(self) -> tuple[np.ndarray, np.ndarray]:
        """A pack to compile with: row 0 everywhere, bound for nowhere."""
        shape = (self.row.shape[0], self.prefill_rows)
        return np.zeros(shape, int), np.full(shape, self.row.shape[1], np.int32)

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


def to_devices(tree: Any, shape: tuple[int, ...]) -> Any:
    """A tree of [R * P, ...] host arrays -> [R, P, ...]."""
    return jax.tree.map(lambda array: array.reshape(*shape, *array.shape[1:]), tree)
