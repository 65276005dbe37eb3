"""Runs a function of these modules in a process of its own, so that its memory and its thread pools are its own."""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class ChildFailed(RuntimeError):
    """The process ended with an error or was stopped at its time limit; the message is one line."""


def call(function: str, *, limit_s: float | None = None, **arguments: Any) -> dict[str, Any]:
    """`function` is "module:name" within benchmarks; arguments and result travel as JSON.

    The result also holds `host_bytes`, the process's peak resident memory. Raises ChildFailed, after `limit_s`
    seconds too.
    """
    command = [sys.executable, "-m", "benchmarks.processes", function, json.dumps(arguments)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    try:
        out, err = child.communicate(timeout=limit_s)
    except BaseException as error:
        os.killpg(child.pid, signal.SIGKILL)  # compilers that it started, too
        child.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ChildFailed(f"stopped after {limit_s:.0f} s") from error
        raise
    if child.returncode:
        lines = [line for line in err.splitlines() if line.strip()]
        raise ChildFailed(lines[-1][:300] if lines else f"ended with status {child.returncode}")
    return json.loads(out.splitlines()[-1])


def main(function: str, arguments: str) -> None:
    module, name = function.split(":")
    result = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**json.loads(arguments)) or {}
    result["host_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
