"""`python -m pipeline.child`: one attempt at a local Beam job, given as JSON on standard input by the supervisor."""

import json
import os
import signal
import sys
import threading
import time


def main() -> int:
    """Runs the job; the exit status says whether every unit was committed."""
    began = time.monotonic()
    task = json.loads(sys.stdin.readline())
    threading.excepthook = _end_with_worker
    threading.Thread(target=_end_with_launcher, daemon=True).start()

    from pipeline.graph import run_graph
    from pipeline.jobfile import build
    from pipeline.plan import from_mapping
    from pipeline.progress import report

    report(start_up_s=time.monotonic() - began)
    run_graph(build(task["job"]), from_mapping(task["plan"]), task["flags"])
    return 0


def _end_with_worker(failure: threading.ExceptHookArgs) -> None:
    """Ends this process when a worker process died: Beam notes it in a thread only, and waits for it for ever."""
    threading.__excepthook__(failure)
    if "Worker subprocess exited" in str(failure.exc_value):
        sys.stderr.flush()
        os._exit(1)


def _end_with_launcher() -> None:
    """Ends this process group when the pipe closes: the launcher is gone, and nobody would end us."""
    sys.stdin.read()
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
