"""Hands a finished run over to other tools. Follows the manifest, streams, and writes create-only like a run does:
an export that was stopped is started again and writes what is missing.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.errors import UsageError, nearest
from pipeline.export.huggingface import write_huggingface
from pipeline.export.ljspeech import write_ljspeech
from pipeline.export.nemo import write_nemo
from pipeline.export.records import ExportRecord, read_records
from pipeline.export.webdataset import write_webdataset
from pipeline.manifest import Manifest, dump_manifest, load_manifest
from pipeline.store import Conflict, Store
from pipeline.store.base import content_sha256

MARK = "_EXPORT.json"
"""What a folder is an export of: written first, so that nothing else is ever mixed with it."""

FORMATS: dict[str, Callable[[Iterator[ExportRecord], Store], None]] = {
    "hf": write_huggingface,
    "ljspeech": write_ljspeech,
    "nemo": write_nemo,
    "webdataset": write_webdataset,
}


@dataclass(frozen=True)
class Exported:
    """How much was handed over."""

    records: int
    audio_s: float


def export(store: Store, destination: Store, export_format: str) -> Exported:
    """Writes a finished run's records to `destination` in another tool's format.

    UsageError for an unknown format, a destination inside the run or the other way round, one that holds something
    else, or a run without audio.
    """
    if export_format not in FORMATS:
        raise UsageError(f"unknown format {export_format!r}{nearest(export_format, FORMATS)}")
    for one, other in ((store.uri, destination.uri), (destination.uri, store.uri)):
        if f"{one}/".startswith(f"{other}/"):
            raise UsageError(f"export to {destination.uri} would mix with the run {store.uri}: choose another folder")
    manifest = load_manifest(store)
    if not manifest.done:
        raise UsageError(
            f"{store.uri} has no record that is done, {manifest.failed} failed: there is nothing to export"
        )
    if not manifest.samples:
        raise UsageError(f"{store.uri} holds no audio: run it with stages.to: audio first")
    _claim(destination, manifest, export_format)
    FORMATS[export_format](read_records(store, manifest), destination)
    return Exported(records=manifest.done, audio_s=manifest.audio_s)


def _claim(destination: Store, manifest: Manifest, export_format: str) -> None:
    """Marks the destination as this export's; UsageError when it is another's or holds anything but hidden files."""
    facts = {"format": export_format, "manifest_sha256": content_sha256(dump_manifest(manifest))}
    mark = (json.dumps(facts) + "\n").encode()
    used = destination.size(MARK) is None and any(not entry.path.startswith(".") for entry in destination.list())
    try:
        if not used:
            destination.create(MARK, mark)
    except Conflict:
        used = True  # by another format, or by this run before it grew
    if used:
        raise UsageError(f"{destination.uri} holds something else already: choose another folder with -o")
