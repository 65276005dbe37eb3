"""Tests that need a tool which no Python package brings."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest


def did_not_run(message: str) -> NoReturn:
    """Says plainly that tests did not run, which CI does not accept."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def go_tool(lane: str, package: str, version: str) -> Path:
    """The binary of a Go command, built on first use and kept. Without Go the lane that needs it did not run."""
    name = package.rpartition("/")[2]
    tools = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bark-beam" / "tools"
    binary = tools / f"{name}-{version}"
    if binary.exists():
        return binary
    go = shutil.which("go")
    if go is None:
        did_not_run(f"the {lane} lane did not run: no Go tool chain to build {name} with (install golang)")
    building = tools / f"build-{os.getpid()}"
    subprocess.run([go, "install", f"{package}@{version}"], env={**os.environ, "GOBIN": str(building)}, check=True)
    os.replace(building / name, binary)
    building.rmdir()
    return binary


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
