"""What the engines tell about themselves: what was compiled, and how busy the slots were."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Compiled:
    """A program, the shape of its largest argument besides the weights (R first), and the seconds it took to get.

    Seconds include tracing; a program found in the compilation cache takes a fraction of those of a new one.
    """

    name: str
    shape: str
    seconds: float


@dataclass(frozen=True)
class Usage:
    """Since loading: seconds a stage ran, and of its slot-steps (a slot for a step) how many held a row.

    A step is a decode step in semantic and coarse, a window in fine and a codec frame in audio.
    """

    seconds: float = 0.0
    busy: int = 0
    slots: int = 0

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(self.seconds - earlier.seconds, self.busy - earlier.busy, self.slots - earlier.slots)


class Meter:
    """Adds up the usage of one stage."""

    def __init__(self) -> None:
        self.usage = Usage()

    def count(self, *, busy: int, slots: int) -> None:
        self.usage = Usage(self.usage.seconds, self.usage.busy + int(busy), self.usage.slots + int(slots))

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            now = time.perf_counter()
            self.usage = Usage(self.usage.seconds + now - start, self.usage.busy, self.usage.slots)
