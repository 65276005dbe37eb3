"""`python -m tests.pipeline.forked_jobs JOB ROOT FIRST LAST STEP`: a whole job in forked children of one process that
has imported everything: killed before store operation FIRST, FIRST + STEP, ..., LAST, and started again each time.

The output of number n is ROOT/killed-n, which starts as a copy of ROOT/before where that is there. Prints a line for
each: the number, how the killed run ended, how the second one did. Without numbers: one undisturbed run, in
ROOT/whole.
It runs under the hook of tests/kill_points, which reads KILL_AT at every operation.
"""

import os
import shutil
import sys
from pathlib import Path

import tests.pipeline.fakes as fakes
from pipeline import launch
from pipeline.cli import main
from pipeline.graph import run_graph


def run_here(job, plan, beam_flags, total, **_) -> None:
    run_graph(job, plan, beam_flags)


def forked_run(job: str, output: Path, kill_at: str) -> int:
    """The exit status of one start of the job, negative when a signal ended it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 70
    try:
        os.environ["KILL_AT"] = kill_at
        status = main(["run", job, "--output", str(output)])
    finally:
        sys.stdout.flush()
        os._exit(status)


def run_all(job: str, root: Path, first: int = 0, last: int = 0, step: int = 1) -> None:
    before = root / "before"
    for number in range(first, last + 1, step):
        output = root / (f"killed-{number}" if number else "whole")
        if before.exists():
            shutil.copytree(before, output)
        counter = root / f"counter-{number}"
        statuses = [forked_run(job, output, f"{number}:{counter}")]
        if number:
            statuses.append(forked_run(job, output, f"0:{counter}"))
        print("ended", number, *statuses, flush=True)


if __name__ == "__main__":
    sys.modules["bark_model.bark"] = fakes
    launch.supervise = run_here
    run_all(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
