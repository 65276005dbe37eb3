"""What a local run says while it goes on, and at its end."""

import sys
import time
from collections.abc import Iterable, Mapping
from typing import TextIO

from pipeline.devices import StageUsage
from pipeline.progress import Tally

PLAIN_LINE_EVERY_S = 10


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


def describe_usage(usage: StageUsage) -> str:
    """`slots busy: semantic 93 %, coarse 95 %; 3.2 min of device time: semantic 41 %, coarse 59 %`, empty for none."""
    total = sum(one.seconds for one in usage.values())
    if not total:
        return ""
    busy = shares({stage: one.busy / one.slots for stage, one in usage.items()})
    spent = shares({stage: one.seconds / total for stage, one in usage.items()})
    return f"slots busy: {busy}; {duration(total)} of device time: {spent}"


def shares(by_stage: Mapping[str, float]) -> str:
    """Shares of 1 as `semantic 93 %, coarse 95 %`."""
    return ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in by_stage.items())


def describe_compiled(compiled: Mapping[str, float], *, in_full: bool) -> list[str]:
    """How long programs took to be ready, by name and shape: one line, or one more for each."""
    name, longest = max(compiled.items(), key=lambda pair: pair[1])
    total = duration(sum(compiled.values()))
    first = f"warmed up {len(compiled)} programs in {total}, the longest in {duration(longest)}: {name}"
    return [first, *(f"  {name} {seconds:.2f} s" for name, seconds in compiled.items() if in_full)]


class Display:
    """One line that is rewritten on a terminal; elsewhere a plain line now and then.

    Rate and time left count from the end of the warm-up, which would make both look bad for long.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._start = time.monotonic()
        self._last, self._shown = self._start, ""

    def tell(self, lines: Iterable[str]) -> None:
        """Prints lines that stay, above the one that is rewritten."""
        start = "\r\x1b[2K" if self._terminal else ""
        self._stream.write(start + "".join(f"{line}\n" for line in lines))
        self._stream.flush()

    def show(self, tally: Tally, *, last: bool = False) -> None:
        """Shows the tally where it is worth it; `last` always does, and ends the line."""
        now = time.monotonic()
        if not tally.warm:  # also when the job was started again
            self._start = now
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
