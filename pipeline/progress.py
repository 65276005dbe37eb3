"""Progress of a local run: workers append JSON lines to a local file, the launcher reads them and adds them up.

The file is named by an environment variable that local workers inherit. Nothing of it reaches any result.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bark_model.engine_stats import Usage
from bark_model.outcomes import Stage
from pipeline.devices import add
from pipeline.errors import PipelineError

VARIABLE = "BARK_BEAM_PROGRESS"
MADE = ("made", "made_failed", "chunks", "units", "audio_s", "start_up_s")
COUNTS = ("records", "done", "failed", "skipped", *MADE)


def report(**facts: float | str | Mapping[str, Any]) -> None:
    """Adds one line of facts, if a launcher on this machine listens."""
    if path := os.environ.get(VARIABLE):
        line = json.dumps(facts, ensure_ascii=True) + "\n"
        with contextlib.suppress(OSError):  # the run matters more than its progress
            handle = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(handle, line.encode())  # one append: lines of several processes do not mix
            finally:
                os.close(handle)


@contextlib.contextmanager
def errors_reported() -> Iterator[None]:
    """Tells the launcher of an error that ends the run, as its own one line: runners wrap it in tracebacks."""
    try:
        yield
    except PipelineError as error:
        report(error=str(error), exit_code=error.exit_code, kind=type(error).__name__)
        raise


@dataclass
class Tally:
    """The sum of all facts reported so far.

    `done` and `failed` records count those found done, too; `made`, `made_failed`, `chunks`, `units` and `audio_s`
    only what was made now. `skipped` counts the units that had a commit. `start_up_s` is the time until workers were
    ready, `compiled` the seconds until each of their programs was, `usage` what each stage took of the devices; the
    first and the last are sums over all workers. `warm` says that a first worker can work, `device` what one of them
    runs on and `note` what users should know of that: workers of one machine see the same devices.
    """

    records: int = 0
    done: int = 0
    failed: int = 0
    made: int = 0
    made_failed: int = 0
    chunks: int = 0
    units: int = 0
    skipped: int = 0
    audio_s: float = 0.0
    start_up_s: float = 0.0
    warm: bool = False
    device: str = ""
    note: str = ""
    compiled: dict[str, float] = field(default_factory=dict)
    usage: dict[Stage, Usage] = field(default_factory=dict)
    error: dict = field(default_factory=dict)

    def add(self, line: str) -> None:
        """Counts one line; what a killed writer left half is passed over."""
        try:
            facts = json.loads(line)
        except ValueError:
            return
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + facts.get(name, 0))
        self.warm = self.warm or "compiled" in facts  # told once programs are ready, be there none
        self.device, self.note = facts.get("device", self.device), facts.get("note", self.note)
        self._add_devices(
            facts.get("compiled", {}),
            {stage: Usage(seconds, busy, slots) for stage, (seconds, busy, slots) in facts.get("usage", {}).items()},
        )
        if "error" in facts and not self.error:
            self.error = facts

    def add_made(self, other: "Tally") -> None:
        """Adds what another start made, not what it found."""
        for name in MADE:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.device = other.device or self.device
        self._add_devices(other.compiled, other.usage)

    def _add_devices(self, compiled: dict[str, float], usage: dict[Stage, Usage]) -> None:
        """Of a program that several workers compiled, the longest time counts: they do so at once."""
        for name, seconds in compiled.items():
            self.compiled[name] = max(seconds, self.compiled.get(name, 0.0))
        self.usage = add([self.usage, usage])


class Reader:
    """Reads the lines that were added since the last look."""

    def __init__(self, path: str):
        self._file = open(path, encoding="utf-8")  # noqa: SIM115 (closed by close)
        self._rest = ""

    def read(self, tally: Tally) -> None:
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            tally.add(line)

    def close(self) -> None:
        self._file.close()
