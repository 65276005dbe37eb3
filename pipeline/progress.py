"""Progress of a local run: workers append JSON lines to a local file, the launcher reads them and tells.

The file is named by an environment variable that local workers inherit. Nothing of it reaches any result.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from pipeline.errors import PipelineError

VARIABLE = "BARK_BEAM_PROGRESS"
PLAIN_LINE_EVERY_S = 10
MADE = ("made", "made_failed", "chunks", "units", "audio_s")
COUNTS = ("records", "done", "failed", "skipped", *MADE)


def report(**facts: float | str) -> None:
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
    only what was made now. `skipped` counts the units that had a commit.
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
    error: dict = field(default_factory=dict)

    def add(self, line: str) -> None:
        """Counts one line; what a killed writer left half is passed over."""
        try:
            facts = json.loads(line)
        except ValueError:
            return
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + facts.get(name, 0))
        if "error" in facts and not self.error:
            self.error = facts

    def add_made(self, other: "Tally") -> None:
        """Adds what another start made, not what it found."""
        for name in MADE:
            setattr(self, name, getattr(self, name) + getattr(other, name))


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


def describe(tally: Tally, elapsed_s: float) -> str:
    """`12 of 30 records, 1 failed, 1.5 min of audio, 2.1 x real time, about 1 min left`."""
    finished = tally.done + tally.failed
    parts = [f"{finished} of {tally.records} records" if tally.records else "reading"]
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    if tally.audio_s:
        parts.append(f"{duration(tally.audio_s)} of audio")
        parts.append(f"{tally.audio_s / max(elapsed_s, 1e-3):.2g} x real time")
    if tally.made and finished < tally.records:
        parts.append(f"about {duration((tally.records - finished) * elapsed_s / tally.made)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A length of time as people say it: `42 s`, `3.5 min`, `12.0 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Display:
    """One line that is rewritten on a terminal; elsewhere a plain line now and then."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._start = time.monotonic()
        self._last, self._shown = self._start, ""

    def show(self, tally: Tally, *, last: bool = False) -> None:
        """Shows the tally where it is worth it; `last` always does, and ends the line."""
        now = time.monotonic()
        text = describe(tally, now - self._start)
        if self._terminal:
            if text != self._shown or last:
                self._stream.write(f"\r\x1b[2K{text}" + ("\n" if last else ""))
        elif text != self._shown and (last or now - self._last >= PLAIN_LINE_EVERY_S):
            self._stream.write(text + "\n")
        else:
            return
        self._stream.flush()
        self._last, self._shown = now, text
