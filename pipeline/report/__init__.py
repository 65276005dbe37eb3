"""`_run/report.html`: what a run made, how long it took, what failed, and clips to listen to, in one file."""

from pipeline.report.findings import gather
from pipeline.report.page import render
from pipeline.store import Store

REPORT = "_run/report.html"


def write_report(store: Store) -> None:
    """Writes the report of an output as it is now, finished or not. StoreError where it cannot be read or written."""
    store.put(REPORT, render(gather(store)).encode())
