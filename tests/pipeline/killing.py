"""Runs a command again and again, killed at every store operation in turn."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

HOOK = Path(__file__).parent.parent / "kill_points"


def run_killed(command: Sequence[str], at: int, counter: Path) -> subprocess.CompletedProcess:
    """Runs a command that is killed before its store operation number `at` (from 1; 0: never)."""
    counter.unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, [str(HOOK), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "KILL_AT": f"{at}:{counter}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def count_operations(command: Sequence[str], counter: Path) -> int:
    """How many store operations an undisturbed run of the command makes."""
    run_killed(command, 0, counter).check_returncode()
    return counter.stat().st_size


def tree(folder: Path, ignored: Callable[[str], bool] = lambda _: False) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not ignored(name)}
