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


class UnknownOption(UsageError):
    """An option that neither the job file nor Beam knows. The command may know more names that are near."""

    def __init__(self, name: str, known: Iterable[str]):
        self.name, self.known = name, tuple(known)
        super().__init__(f"unknown option {excerpt(name)}{nearest(name, self.known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`: did you mean 'x'?` with the known names nearest to a mistyped one, or nothing.

    First come names that begin as typed, whole or in the part after their last dot: `temp` -> `fine.temperature`.
    """
    typed = name[:100]
    likeness = {one: _likeness(typed, one) for one in known}
    found = sorted((one for one in likeness if likeness[one] >= 0.6), key=lambda one: -likeness[one])[:2]
    return f": did you mean {' or '.join(repr(one) for one in found)}?" if found else ""


def _likeness(typed: str, known: str) -> float:
    """0 to 1 by common letters, of the whole names or of their last parts; 1 more where the known one goes on as
    typed."""
    typed_last, known_last = typed.rpartition(".")[2], known.rpartition(".")[2]
    goes_on = len(typed_last) > 2 and (known.startswith(typed) or known_last.startswith(typed_last))
    return goes_on + max(_common(typed, known), 0.95 * _common(typed_last, known_last))


def _common(typed: str, known: str) -> float:
    return difflib.SequenceMatcher(None, known, typed).ratio()


def excerpt(value: object, limit: int = 60) -> str:
    """The value as it would be typed in Python, cut to `limit` characters: safe to show in one line."""
    shown = repr(value)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
