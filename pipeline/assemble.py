"""A unit's outcomes -> its finished records as token rows and waveforms; a record fails whole for one chunk."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bark_model.axes import Waveform
from bark_model.outcomes import Failure, Result
from bark_model.voices import Voice
from pipeline.isolation import Outcome
from pipeline.job import Job
from pipeline.jobfile import to_mapping
from pipeline.outputs.tokens import TokenRow
from pipeline.prepare import chunk_id
from pipeline.records import FailedRecord, Record
from pipeline.units import Ready, Unit


@dataclass(frozen=True, kw_only=True)
class Made:
    """What made the rows: the job, its checkpoint, and where a record's voice is found."""

    job: Job
    model_sha256: str
    sample_rate: int
    voice: Callable[[Record], Voice | None]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A record's rows, one a chunk, and their waveforms (empty when the run stops before audio)."""

    rows: tuple[TokenRow, ...]
    waveforms: tuple[Waveform, ...]


def assemble(unit: Unit, outcomes: Sequence[Outcome], made: Made) -> tuple[list[Finished], list[FailedRecord]]:
    """The unit's records in order: those that are whole, and those that failed, now or before the unit was cut."""
    finished, failed, start = [], list(unit.failed), 0
    for ready in unit.ready:
        end = start + len(ready.chunks)
        clips, start = [_clip(outcome) for outcome in outcomes[start:end]], end
        faults = [(number, clip) for number, clip in enumerate(clips) if isinstance(clip, Failure)]
        if faults:
            failed.append(_fail(ready, *faults[0]))
        else:
            finished.append(_finish(ready, [clip for clip in clips if isinstance(clip, _Clip)], made))
    return finished, failed


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """A chunk that was made, and the slot count that made it."""

    result: Result
    slots: int


def _clip(outcome: Outcome) -> _Clip | Failure:
    if isinstance(outcome.made, Failure):
        return outcome.made
    return _fault(outcome.made) or _Clip(result=outcome.made, slots=outcome.slots)


def _fault(made: Result) -> Failure | None:
    """Why no file may hold a chunk's audio."""
    if made.audio is None or (made.audio.size and np.isfinite(made.audio).all()):
        return None
    what = "holds NaN or infinity" if made.audio.size else "is empty"
    return Failure(id=made.id, stage="audio", error="NonFinite", message=f"the audio {what}")


def _fail(ready: Ready, number: int, fault: Failure) -> FailedRecord:
    part = f"chunk {number + 1} of {len(ready.chunks)}: " if len(ready.chunks) > 1 else ""
    return FailedRecord(
        id=ready.id,
        source=f"{ready.record.source}:{ready.record.line}",
        stage=fault.stage,
        error=fault.error,
        message=part + fault.message,
        attempts=ready.attempts,
    )


def _finish(ready: Ready, clips: Sequence[_Clip], made: Made) -> Finished:
    return Finished(
        rows=tuple(_row(ready, number, clip, made) for number, clip in enumerate(clips)),
        waveforms=tuple(clip.result.audio for clip in clips if clip.result.audio is not None),
    )


def _row(ready: Ready, number: int, clip: _Clip, made: Made) -> TokenRow:
    record, part, result, job = ready.record, ready.chunks[number], clip.result, made.job
    given = ready.stored[number] if ready.stored else TokenRow(id="", record_id="")
    voice_name, voice_hash = _voice(record, given, made)
    codes = result.coarse if result.fine is None else result.fine
    return replace(
        given,  # what a stored row says of its book, its text and its semantic tokens stays
        id=chunk_id(ready.id, number),
        record_id=ready.id,
        document=record.document,
        index=record.index,
        text=part.text or None,
        language=record.language or job.language,
        voice=voice_name,
        voice_hash=voice_hash,
        seed=job.seed_of(record.seed),
        attempt=max(ready.attempt, given.attempt),
        semantic=result.semantic,
        coarse=result.coarse,
        fine=result.fine,
        num_frames=None if codes is None else codes.shape[1],
        stop_reason=result.stop_reason or given.stop_reason,
        model=job.checkpoint,
        model_sha256=made.model_sha256,
        dtype=job.devices.dtype,
        slots=clip.slots,
        sampling=_sampling(job, given),
        source=record.source,
        source_start=part.start,
        source_end=part.end,
    )


def _voice(record: Record, given: TokenRow, made: Made) -> tuple[str | None, str | None]:
    """Name and hash of the voice that made the codes: the stored ones where no stage ran that reads a voice."""
    if made.job.stages.from_ in ("fine", "audio"):
        return given.voice, given.voice_hash
    voice = made.voice(record)
    return (voice.name, voice.sha256) if voice else (None, None)


def _sampling(job: Job, given: TokenRow) -> str:
    """The job's sampling as JSON; where stored tokens were re-used, with what had made those."""
    values = to_mapping(job.sampling)
    if given.id:
        made = {name: getattr(given, name) for name in ("model", "model_sha256", "dtype", "slots", "seed", "attempt")}
        values["reused"] = {
            "stage": job.stages.from_,
            **made,
            "voice": given.voice,
            "sampling": _parsed(given.sampling),
        }
    return json.dumps(values, sort_keys=True)


def _parsed(sampling: str | None) -> object:
    """A stored row's sampling, as JSON inside JSON if it is any."""
    try:
        return json.loads(sampling or "null")
    except (ValueError, RecursionError):
        return None
