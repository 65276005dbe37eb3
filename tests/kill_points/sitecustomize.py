"""Python imports this first where PYTHONPATH names this folder: the crash matrix. A process with KILL_AT=n:FILE, or
any child of it, kills itself before the n-th store operation that all of them make together; n of 0 only counts.
"""

import fcntl
import os
import signal

import pipeline.store.local as local

_OPERATIONS = {"link", "fsync", "replace", "unlink", "stat"}


def _count_and_kill() -> None:
    at, _, counter = os.environ["KILL_AT"].partition(":")
    handle = os.open(counter, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.write(handle, b".")
    number = os.fstat(handle).st_size
    os.close(handle)
    if number == int(at):
        os.kill(os.getpid(), signal.SIGKILL)


def _counted(operation):
    def counted(*args, **kwargs):
        _count_and_kill()
        return operation(*args, **kwargs)

    return counted


class _CountedOs:
    """The os module as the local store sees it, with the calls that touch files counted."""

    def __getattr__(self, name: str):
        return _counted(getattr(os, name)) if name in _OPERATIONS else getattr(os, name)


if "KILL_AT" in os.environ:
    local.os = _CountedOs()
    for _name in ("open", "create", "replace", "version", "sweep"):
        setattr(local.LocalStore, _name, _counted(getattr(local.LocalStore, _name)))
