"""The one file that a command writes, checked before any work goes into it."""

import os
from pathlib import Path

from pipeline.errors import UsageError


def target_file(path: str) -> Path:
    """Where to write; UsageError when no file can lie there."""
    target = Path(path)
    folder = target.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"output {path!r} lies in no folder that is there: make it first")
    if target.is_dir():
        raise UsageError(f"output {path!r} is a folder: name a file")
    if not os.access(target if target.exists() else folder, os.W_OK):
        raise UsageError(f"output {path!r} is not writable: choose another place, or change its permissions")
    return target
