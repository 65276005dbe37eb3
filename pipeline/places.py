"""Where a job's files lie: local paths made absolute once, and an output that cannot be refused."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bark_model.checkpoint import DEMO
from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.sources import Shard
from pipeline.store.filesystems import is_local


def with_absolute_paths(job: Job) -> Job:
    """The job as it means the same from any working directory: workers, rows and a retry from elsewhere read it.

    A checkpoint or voice that is a name (demo, suno/bark, a preset) stays one. The output is where it is found.
    """
    voice, cache = job.voice, job.devices.compilation_cache
    is_folder = job.checkpoint != DEMO and os.path.isdir(os.path.expanduser(job.checkpoint))
    return replace(
        job,
        input=tuple(map(_absolute, job.input)),
        checkpoint=_absolute(job.checkpoint) if is_folder else job.checkpoint,
        voice=_absolute(voice) if voice and voice.endswith(".npz") else voice,
        devices=replace(job.devices, compilation_cache=_absolute(cache) if cache else cache),
    )


def _absolute(place: str) -> str:
    """An absolute path; a URI stays as it is, without the file:// that only some libraries know."""
    return os.path.abspath(os.path.expanduser(place.removeprefix("file://"))) if is_local(place) else place


def check_output(job: Job, shards: Sequence[Shard]) -> None:
    """UsageError for an output that is its own input, lies in it, or cannot be written."""
    output = _normal(job.output)
    for place in (*map(_normal, job.input), *(_normal(shard.uri) for shard in shards)):
        if place == output:
            raise UsageError(f"output {job.output!r} is the input, too: choose another output")
    for pattern in map(_normal, job.input):
        folder = pattern.partition("/**")[0]
        reaches_down = folder != pattern or not any(sign in pattern for sign in "*?[")
        if reaches_down and f"{output}/".startswith(f"{folder}/"):
            raise UsageError(f"output {job.output!r} lies inside the input {pattern!r}: choose another output")
    for shard in shards:
        if _normal(shard.uri).startswith(f"{output}/"):
            raise UsageError(f"input {shard.uri!r} lies inside the output {job.output!r}: choose another output")
    if is_local(job.output):
        _check_writable(Path(output))


def _normal(place: str) -> str:
    """A path or URI in one form, links resolved, so that two names of one place are equal."""
    if is_local(place):
        return os.path.realpath(os.path.expanduser(place.removeprefix("file://")))
    return place.rstrip("/")


def _check_writable(output: Path) -> None:
    existing = next(folder for folder in (output, *output.parents) if folder.exists())
    if not existing.is_dir():
        raise UsageError(f"output {str(output)!r} lies in {str(existing)!r}, which is a file: choose another output")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"output {str(output)!r} is not writable: choose another output, or change its permissions")
