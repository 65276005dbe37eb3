"""Gathers what the report tells: counts, failures, how the audio measures, and clips worth listening to."""

import io
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.commit import UnitCommit, read_commit, read_file_rows
from pipeline.jobfile import JOB_FILE
from pipeline.outputs.audio_parquet import read_audio
from pipeline.outputs.metrics import Metrics, read_metrics
from pipeline.outputs.tokens import TokenRow
from pipeline.records import FailedRecord
from pipeline.status import Status, counted_commits, dealt_buckets, is_finished, planned, status_of
from pipeline.store import NotFound, Store

MEASURED_UNITS = 200
"""Most units whose token rows are read, spread evenly over the run: a report then costs about the same at any size."""
EXAMPLES = 3
"""Failed records that are shown of each kind, and clips to hear of each mark."""
SAMPLES = 8
"""Clips to hear, spread evenly over the run."""
LARGEST_SOUND_BYTES = 1_000_000
"""Larger audio is named, not embedded: 20 s of WAV, three quarters of a minute of FLAC."""

SILENT_DBFS = -50.0
FULL_SCALE_DBFS = -0.1
COMPARED_CLIPS = 20
"""Fewest clips of a language of which the usual speaking rate is told."""

_COLUMNS = ("text", "language", "voice", "duration_s", "peak_dbfs", "rms_dbfs", "stop_reason", "audio_path")
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A chunk as its token row measures it, and the unit that holds its audio."""

    unit: str
    row: TokenRow

    @property
    def characters_a_second(self) -> float | None:
        """How fast it is spoken; None without audio, or with a text too short to tell."""
        text, seconds = self.row.text or "", self.row.duration_s
        return len(text) / seconds if seconds and len(text) >= 10 else None


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A clip to listen to: its record's whole encoded audio, or None where that is too large for the page."""

    clip: Clip
    file_name: str
    data: bytes | None


@dataclass
class Failures:
    """The failed records of one stage and error: how many, and the first few."""

    count: int = 0
    examples: list[FailedRecord] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Clips that measure unlike speech, and some of them to hear."""

    name: str
    count: int
    sounds: tuple[Sound, ...]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything on the page. `clips` are those of `measured` of the run's `units` that have a commit."""

    uri: str
    job: str
    status: Status
    starts: tuple[Metrics, ...]
    failures: dict[tuple[str, str], Failures]
    units: int
    measured: int
    clips: tuple[Clip, ...]
    marks: tuple[Mark, ...]
    samples: tuple[Sound, ...]


def gather(store: Store) -> Findings:
    """Reads an output, finished or not. UsageError when nothing was ever run there, Corrupt for spoiled files."""
    plan = planned(store)
    buckets = dealt_buckets(store, plan)
    names = sorted(counted_commits(store, plan, buckets))
    chosen = frozenset(spread(names, MEASURED_UNITS))
    failures: dict[tuple[str, str], Failures] = defaultdict(Failures)
    commits: dict[str, UnitCommit] = {}

    def noted() -> Iterator[UnitCommit]:
        for commit in store.each(lambda name: read_commit(store, name), names):
            if commit.generation == plan.generation:  # failures of an earlier one were listed anew
                _add_failures(failures, commit)
            if commit.name in chosen:
                commits[commit.name] = commit
            yield commit

    status = status_of(plan, buckets, noted(), finished=is_finished(store, plan))
    measured = store.each(lambda commit: list(_clips(store, commit)), commits.values())
    clips = tuple(clip for found in measured for clip in found)
    heard = [clip for clip in clips if clip.row.audio_path is not None]

    def sounds(clips: Sequence[Clip], most: int) -> tuple[Sound, ...]:
        return tuple(store.each(lambda clip: _sound(store, commits[clip.unit], clip), spread(clips, most)))

    marked = [(name, [clip for clip in heard if holds(clip)]) for name, holds in _marks(heard)]
    return Findings(
        uri=store.uri,
        job=_stored_job(store),
        status=status,
        starts=tuple(read_metrics(store)),
        failures=dict(sorted(failures.items(), key=lambda item: -item[1].count)),
        units=len(names),
        measured=len(commits),
        clips=clips,
        marks=tuple(
            Mark(name=name, count=len(found), sounds=sounds(found, EXAMPLES)) for name, found in marked if found
        ),
        samples=sounds(heard, SAMPLES),
    )


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most `most` of the items, evenly spread from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[number * (len(items) - 1) // (most - 1)] for number in range(most)]


def _add_failures(failures: dict[tuple[str, str], Failures], commit: UnitCommit) -> None:
    for entry in commit.failed:
        kind = failures[entry.record.stage, entry.record.error]
        kind.count += 1
        if len(kind.examples) < EXAMPLES:
            kind.examples.append(entry.record)


def _clips(store: Store, commit: UnitCommit) -> Iterator[Clip]:
    for file in commit.files:
        if file.kind == "tokens":
            for row in read_file_rows(store, file, _COLUMNS):
                yield Clip(unit=commit.name, row=row)


def _marks(clips: Sequence[Clip]) -> list[tuple[str, Callable[[Clip], bool]]]:
    """What is told of single clips that have audio, and which ones it holds for."""
    usual = _usual_rates(clips)

    def times_usual(clip: Clip) -> float:
        rate, median = clip.characters_a_second, usual.get(clip.row.language)
        return rate / median if rate and median else 1.0

    def is_full_scale(clip: Clip) -> bool:
        return clip.row.peak_dbfs is not None and clip.row.peak_dbfs > FULL_SCALE_DBFS

    return [
        ("ran into the token limit: the end may be missing", lambda clip: clip.row.stop_reason == "cap"),
        (f"almost silent: below {SILENT_DBFS:.0f} dBFS", lambda clip: (clip.row.rms_dbfs or 0.0) < SILENT_DBFS),
        ("at full scale: may be clipped", is_full_scale),
        ("more than twice as fast as usual: words may be missing", lambda clip: times_usual(clip) > 2),
        ("more than twice as slow as usual: pauses, or words nobody wrote", lambda clip: times_usual(clip) < 0.5),
    ]


def _usual_rates(clips: Sequence[Clip]) -> dict[str | None, float]:
    """Median characters a second by language, of the languages with enough clips."""
    rates: dict[str | None, list[float]] = defaultdict(list)
    for clip in clips:
        if rate := clip.characters_a_second:
            rates[clip.row.language].append(rate)
    return {language: statistics.median(found) for language, found in rates.items() if len(found) >= COMPARED_CLIPS}


def _sound(store: Store, commit: UnitCommit, clip: Clip) -> Sound:
    file = next(file for file in commit.files if file.path == clip.row.audio_path)
    if file.kind == "audio":
        name = file.path.rpartition("/")[2]
        data = store.read(file.path, sha256=file.sha256) if file.bytes <= LARGEST_SOUND_BYTES else None
    else:
        rows = read_audio(io.BytesIO(store.read(file.path, sha256=file.sha256)))
        name, data = next((row.path, row.data) for row in rows if row.id == clip.row.record_id)
    return Sound(clip=clip, file_name=name, data=data if data and len(data) <= LARGEST_SOUND_BYTES else None)


def _stored_job(store: Store) -> str:
    try:
        return store.read(JOB_FILE).decode("utf-8", "replace")
    except NotFound:
        return ""
