"""What may go wrong with a run as a whole, as one line for the user and an exit code. A record's own faults are
FailedRecord rows instead and never raise."""

import difflib
from collections.abc import Iterable


class PipelineError(Exception):
    """The run failed; its message is one line that names the value, the limit and the remedy."""

    exit_code = 1


class UsageError(PipelineError):
    """The command, the job file or the input is wrong; nothing was started."""

    exit_code = 2


def nearest(name: str, known: Iterable[str]) -> str:
    """`: did you mean 'x'?` with the known names nearest to a mistyped one, or nothing."""
    found = difflib.get_close_matches(name[:100], list(known), n=2, cutoff=0.6)
    return f": did you mean {' or '.join(repr(name) for name in found)}?" if found else ""


def excerpt(value: object, limit: int = 60) -> str:
    """The value as it would be typed in Python, cut to `limit` characters: safe to show in one line."""
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
