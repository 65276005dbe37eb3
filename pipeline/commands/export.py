"""`bark-beam export`: an output in the layout another tool reads."""

from argparse import Namespace

from pipeline.display import duration
from pipeline.status import open_run
from pipeline.store import open_store


def export(options: Namespace, flags: list[str]) -> int:
    """Writes the finished records of an output to another folder or bucket."""
    from pipeline.export import export as write

    target = options.to or f"{options.output.rstrip('/')}-{options.format}"
    with open_run(options.output) as (store, _), open_store(target) as destination:
        exported = write(store, destination, options.format)
    print(f"{target}: {exported.records} records, {duration(exported.audio_s)} of audio")
    return 0
