"""`bark-beam status`, `report` and `verify`: what an output says of itself."""

from argparse import Namespace

from pipeline.display import duration
from pipeline.status import Status, open_run, read_status

DAMAGED = 1


def status(options: Namespace, flags: list[str]) -> int:
    """Prints how far the run is."""
    with open_run(options.output) as (store, _):
        for line in _status_lines(read_status(store)):
            print(line)
    return 0


def _status_lines(now: Status) -> list[str]:
    state = "finished" if now.finished else "not finished: running, or to be resumed by `bark-beam run`"
    of_units = f" of {now.units}" if now.units is not None else ", the input is still being read"
    of_records = f" of {now.records}" if now.records is not None else ""
    return [
        f"generation  {now.generation}, {state}",
        f"units       {now.committed}{of_units}",
        f"records     {now.done + now.failed}{of_records}: {now.done} done, {now.failed} failed",
        f"audio       {duration(now.audio_s)}",
    ]


def report(options: Namespace, flags: list[str]) -> int:
    """Writes the report of a run, finished or not, into its output."""
    from pipeline.report import REPORT, write_report

    with open_run(options.output) as (store, _):
        write_report(store)
    print(f"{options.output.rstrip('/')}/{REPORT}")
    return 0


def verify(options: Namespace, flags: list[str]) -> int:
    """Reads every byte of a finished output; 1 when something is damaged."""
    from pipeline.verify import verify as check

    with open_run(options.output) as (store, _):
        report = check(store)
    for problem in report.problems:
        print(problem)
    if report.strays.total:
        print(f"left by stopped or superseded attempts, may be removed: {report.strays.short()}")
    if report.foreign.total:
        print(f"not written by bark-beam: {report.foreign.short()}")
    verdict = "whole" if report.is_whole else f"{report.problems.total} problems"
    print(f"{verdict}: {report.done} records done, {report.failed} failed, {report.files} files, {report.bytes} bytes")
    return 0 if report.is_whole else DAMAGED
