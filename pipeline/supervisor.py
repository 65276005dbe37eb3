"""Runs a local Beam job in a child interpreter and starts it again when it dies: Beam's local runner never retries.

Only units without a commit are done again. The child and its workers form one process group that ends with us.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import IO

from pipeline.display import Display, describe_compiled
from pipeline.errors import PipelineError, UsageError
from pipeline.job import Job
from pipeline.jobfile import to_mapping
from pipeline.plan import Plan
from pipeline.progress import VARIABLE, Reader, Tally

ATTEMPTS = 3
"""Starts without any new unit before the run is given up."""
FINAL_ERRORS = ("Denied", "NoCredentials", "NoSpace", "Conflict")
"""Errors that another start would only meet again."""
_POLL_S = 0.1
_STOP_S = 10


class RunFailed(PipelineError):
    """The job ended before every unit was committed; what is committed is kept."""


def supervise(job: Job, plan: Plan, beam_flags: list[str], total: Tally, *, debug: bool = False) -> None:
    """Runs the job until every unit has a commit, and adds what was made to `total`.

    RunFailed, or the error that a worker reported.
    """
    task = json.dumps({"job": to_mapping(job), "plan": asdict(plan), "flags": beam_flags})
    display, attempts = Display(), ATTEMPTS
    while True:
        tally = Tally()
        try:
            end = _attempt(task, job, display, tally, debug=debug)
        finally:
            total.add_made(tally)
            total.skipped = total.skipped or tally.skipped
        if end.status == 0:
            return
        if end.is_final:
            raise ReportedError(end.tally.error)
        attempts = ATTEMPTS if end.tally.made else attempts - 1
        if attempts == 0:
            raise RunFailed(f"{end.reason}, {ATTEMPTS} times without any new unit: run again to resume")
        print(f"{end.reason}: starting it again for what is missing", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class _End:
    """How one child ended: what it reported, its exit status (negative: the signal) and its last words."""

    tally: Tally
    status: int
    last_line: str

    @property
    def is_final(self) -> bool:
        error = self.tally.error
        return bool(error) and (error["exit_code"] == UsageError.exit_code or error["kind"] in FINAL_ERRORS)

    @property
    def reason(self) -> str:
        if self.status < 0:
            return f"the job was killed by {signal.Signals(-self.status).name}"
        said = self.tally.error.get("error") or self.last_line or "no reason given"
        return f"the job ended with status {self.status} ({said[:300]})"


class ReportedError(PipelineError):
    """An error that ended a worker, told again by the launcher."""

    def __init__(self, facts: dict):
        super().__init__(facts["error"])
        self.exit_code = facts["exit_code"]


class TooManyFailed(PipelineError):
    """More records failed than the job allows."""

    def __init__(self, failed: int, records: int, max_failed: str):
        super().__init__(
            f"{failed} of {records} records failed, max_failed is {max_failed}: the work done is kept; look at "
            "`bark-beam failed`, or raise --max_failed and run again"
        )


def _attempt(task: str, job: Job, display: Display, tally: Tally, *, debug: bool) -> _End:
    with (
        tempfile.NamedTemporaryFile(prefix="bark-beam-progress-") as progress,
        tempfile.TemporaryFile(mode="w+", prefix="bark-beam-log-", errors="replace") as log,
        contextlib.closing(Reader(progress.name)) as reader,
    ):
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.child"],
            stdin=subprocess.PIPE,
            stdout=None if debug else log,
            stderr=None if debug else log,
            env={**os.environ, VARIABLE: progress.name},
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we end the whole group
        )
        try:
            _hand_over(child, task)
            told = False
            while child.poll() is None:
                time.sleep(_POLL_S)
                reader.read(tally)
                if tally.compiled and not told:
                    note = [f"note: {tally.note}"] if tally.note else []
                    display.tell(describe_compiled(tally.compiled, in_full=debug) + note)
                    told = True
                display.show(tally)
                _stop_when_too_many_fail(tally, job)
            reader.read(tally)
            display.show(tally, last=True)
        finally:
            _end(child)
        return _End(tally=tally, status=child.returncode, last_line=_last_line(log))


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in deque(log, maxlen=20)]
    return next((line for line in reversed(lines) if line), "")


def _hand_over(child: subprocess.Popen, task: str) -> None:
    """The task goes through the pipe, which stays open: the child ends itself when it closes, as it does with us."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once; its status tells
        child.stdin.write(task + "\n")
        child.stdin.flush()


def _stop_when_too_many_fail(tally: Tally, job: Job) -> None:
    allowed = job.allowed_failures(tally.records)
    if tally.records and tally.failed > allowed:
        raise TooManyFailed(tally.failed, tally.records, job.max_failed)


def _end(child: subprocess.Popen) -> None:
    """Ends the child and whatever its workers are, first kindly."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(_STOP_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    child.wait()
