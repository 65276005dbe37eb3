"""Runs a local Beam job in a child interpreter and starts it again when it dies: Beam's local runner never retries.

Only units without a commit are done again. The child and its workers form one process group that ends with us.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict

from pipeline.errors import PipelineError
from pipeline.job import Job
from pipeline.jobfile import to_mapping
from pipeline.plan import Plan
from pipeline.progress import VARIABLE, Display, Reader, Tally

ATTEMPTS = 3
"""Starts without any new unit before the run is given up."""
_POLL_S = 0.1
_STOP_S = 10


class RunFailed(PipelineError):
    """The job ended before every unit was committed; what is committed is kept."""


def supervise(job: Job, plan: Plan, beam_flags: list[str]) -> Tally:
    """Runs the job until every unit has a commit. RunFailed, or the error that a worker reported."""
    task = json.dumps({"job": to_mapping(job), "plan": asdict(plan), "flags": beam_flags})
    display, attempts = Display(), ATTEMPTS
    while True:
        tally, status = _attempt(task, job, display)
        if status == 0:
            return tally
        if tally.error and tally.error["exit_code"] == 2 or tally.error.get("kind") in _FINAL_ERRORS:
            raise _as_error(tally.error)
        attempts = ATTEMPTS if tally.made else attempts - 1
        why = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if attempts == 0:
            reason = tally.error.get("error") or f"the job {why} {ATTEMPTS} times without any new unit"
            raise RunFailed(f"{reason}: run again to resume, with --debug to see its log")
        print(f"the job {why}: starting it again for what is missing", file=sys.stderr)


_FINAL_ERRORS = ("Denied", "NoCredentials", "NoSpace", "Conflict", "TooManyFailed")


class _ReportedError(PipelineError):
    """An error that ended a worker, told again by the launcher."""


def _as_error(facts: dict) -> PipelineError:
    error = _ReportedError(facts["error"])
    error.exit_code = facts["exit_code"]
    return error


def _attempt(task: str, job: Job, display: Display) -> tuple[Tally, int]:
    """One child from start to end: what it reported, and its exit status (negative: the signal that killed it)."""
    tally = Tally()
    with tempfile.NamedTemporaryFile(prefix="bark-beam-progress-") as progress:
        reader = Reader(progress.name)
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.child"],
            stdin=subprocess.PIPE,
            env={**os.environ, VARIABLE: progress.name},
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C reaches us alone, and we end the whole group
        )
        try:
            _hand_over(child, task)
            while child.poll() is None:
                time.sleep(_POLL_S)
                reader.read(tally)
                display.show(tally)
                _stop_when_too_many_fail(tally, job)
            reader.read(tally)
            display.show(tally, last=True)
            return tally, child.returncode
        finally:
            _end(child)
            reader.close()


def _hand_over(child: subprocess.Popen, task: str) -> None:
    """The task goes through the pipe, which stays open: the child ends itself when it closes, as it does with us."""
    try:
        child.stdin.write(task + "\n")
        child.stdin.flush()
    except BrokenPipeError:
        pass  # it died at once; its status tells


def _stop_when_too_many_fail(tally: Tally, job: Job) -> None:
    allowed = job.allowed_failures(tally.records)
    if tally.records and tally.failed > allowed:
        raise TooManyFailed(tally.failed, tally.records, job.max_failed)


class TooManyFailed(PipelineError):
    """More records failed than the job allows."""

    def __init__(self, failed: int, records: int, max_failed: str):
        super().__init__(
            f"{failed} of {records} records failed, max_failed is {max_failed}: the work done is kept; see "
            "`bark-beam failed OUT`, or raise --max_failed and run again"
        )


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
    child.stdin.close()
    child.wait()
