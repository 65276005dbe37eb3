"""The manifest: written last, once a generation. Readers follow it and nothing else; listings are never the truth.

It names every unit's Parquet and failed files with their checksums, and its commit record, which does the same for
audio files: from this one file everything can be found and checked.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.commit import CommittedFile, UnitCommit, commit_path, parse_commit
from pipeline.errors import PipelineError
from pipeline.outputs.card import dataset_card
from pipeline.records import id_digest
from pipeline.store import Conflict, Corrupt, NotFound, Store
from pipeline.store.base import content_sha256

MANIFEST = "_MANIFEST.json"
CARD = "README.md"
_FORMAT = 1


class IncompleteRun(PipelineError):
    """Not every id that went in came out as done or failed, so there is no manifest."""


@dataclass(frozen=True, kw_only=True)
class ManifestShard:
    """A unit as the manifest lists it: its commit record's checksum, its counts, its Parquet and failed files."""

    unit: str
    sha256: str
    done: int
    failed: int
    chunks: int
    samples: int
    audio_files: int
    bytes: int
    files: tuple[CommittedFile, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A finished run. `removed` counts earlier records that are no longer in the input; their audio stays."""

    generation: int
    fingerprint: str
    records: int
    done: int
    failed: int
    removed: int
    chunks: int
    samples: int
    sample_rate: int
    bytes: int
    shards: tuple[ManifestShard, ...]

    @property
    def audio_s(self) -> float:
        return self.samples / self.sample_rate


class Ids:
    """Says whether an id came twice, in 16 bytes an id and whatever the order."""

    def __init__(self):
        self._digests = bytearray()

    def add(self, record_id: str) -> None:
        self._digests += id_digest(record_id)[:16]

    def repeated(self) -> int:
        """How many additions were of ids already there."""
        halves = np.frombuffer(bytes(self._digests), ">u8").reshape(-1, 2)
        ordered = halves[np.lexsort((halves[:, 1], halves[:, 0]))]
        return int((ordered[1:] == ordered[:-1]).all(axis=1).sum())


def publish(
    store: Store,
    *,
    generation: int,
    fingerprint: str,
    commits: Iterable[str],
    records: int,
    removed: int = 0,
) -> Manifest:
    """Checks the commits that make up a run and writes the manifest. Doing it again changes nothing.

    `commits` are the names of the generation's units and of the earlier ones that stay; of the latter the done
    records count, their failed ones were listed anew. `records` is the number of ids in the input, `removed` that of
    earlier done records which are not among them. IncompleteRun when the numbers do not add up; Conflict when a newer
    generation is there.
    """
    store.sweep()
    manifest = _build(store, generation, fingerprint, sorted(commits), removed)
    if manifest.done + manifest.failed != records + removed:
        raise IncompleteRun(
            f"{store.uri}: {records + removed} records went in, {manifest.done} are done and {manifest.failed} failed: "
            "run again; only what is missing runs"
        )
    data = dump_manifest(manifest)
    version, current = store.version(MANIFEST), None
    if version is not None:
        current = load_manifest(store)
        if current.generation > generation:
            raise Conflict(f"{store.uri} has a newer generation {current.generation}: this run's {generation} is stale")
    store.create(f"_run/manifests/{generation:04d}.json", data)
    store.put(CARD, dataset_card(manifest).encode())
    if version is None:
        store.create(MANIFEST, data)
    elif current != manifest:
        store.replace(MANIFEST, data, expected=version)
    return manifest


def _build(store: Store, generation: int, fingerprint: str, names: list[str], removed: int) -> Manifest:
    """The manifest of the commits; IncompleteRun for one of another job or an id that came twice."""
    ids, shards, sample_rate = Ids(), [], 24000
    for commit, sha256 in store.each(lambda name: _read(store, name), names):
        if commit.fingerprint != fingerprint:
            raise IncompleteRun(
                f"{store.uri}: unit {commit.name} was made with another configuration: use a new output"
            )
        kept = commit.generation < generation
        for record in commit.done:
            ids.add(record.id)
        for entry in () if kept else commit.failed:
            ids.add(entry.record.id)
        shards.append(_shard(commit, sha256, kept=kept))
        sample_rate = commit.sample_rate
    if repeated := ids.repeated():
        raise IncompleteRun(f"{store.uri}: {repeated} ids are in more than one unit: run again into a new output")
    sums = {
        name: sum(getattr(shard, name) for shard in shards) for name in ("done", "failed", "chunks", "samples", "bytes")
    }
    return Manifest(
        generation=generation,
        fingerprint=fingerprint,
        records=sums["done"] + sums["failed"],
        removed=removed,
        sample_rate=sample_rate,
        shards=tuple(shards),
        **sums,
    )


def _read(store: Store, name: str) -> tuple[UnitCommit, str]:
    data = store.read(commit_path(name))
    return parse_commit(data, f"{store.uri}/{commit_path(name)}"), content_sha256(data)


def _shard(commit: UnitCommit, sha256: str, *, kept: bool) -> ManifestShard:
    files = [file for file in commit.files if not (kept and file.kind == "failed")]
    return ManifestShard(
        unit=commit.name,
        sha256=sha256,
        done=len(commit.done),
        failed=0 if kept else len(commit.failed),
        chunks=commit.chunks,
        samples=commit.samples,
        audio_files=sum(file.kind == "audio" for file in files),
        bytes=sum(file.bytes for file in files),
        files=tuple(file for file in files if file.kind != "audio"),
    )


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest's bytes: ASCII JSON with its audio in seconds added for people."""
    values = {"format": _FORMAT, "audio_s": round(manifest.audio_s, 3)} | asdict(manifest)
    return (json.dumps(values, indent=1) + "\n").encode()


def load_manifest(store: Store) -> Manifest:
    """The manifest of a finished run. NotFound, Corrupt, each with what to do."""
    try:
        data = store.read(MANIFEST)
    except NotFound as error:
        raise NotFound(f"{store.uri} has no {MANIFEST}: the run is not finished; start it again, it resumes") from error
    try:
        return _parse(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt(f"{store.uri}/{MANIFEST} is no manifest of this version ({type(error).__name__})") from error


def _parse(values: dict[str, Any]) -> Manifest:
    if values.pop("format") != _FORMAT:
        raise ValueError("another format")
    values.pop("audio_s")
    for shard in values["shards"]:
        shard["files"] = tuple(CommittedFile(**file) for file in shard["files"])
    values["shards"] = tuple(ManifestShard(**shard) for shard in values["shards"])
    return Manifest(**values)


def read_shard_commit(store: Store, shard: ManifestShard) -> UnitCommit:
    """The commit record behind a shard; Corrupt when it is not the one the manifest names."""
    path = commit_path(shard.unit)
    return parse_commit(store.read(path, sha256=shard.sha256), f"{store.uri}/{path}")
