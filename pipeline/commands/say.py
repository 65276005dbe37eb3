"""`bark-beam say`: one text into one file, without Beam."""

from argparse import Namespace
from pathlib import Path

from bark_model.outcomes import Failure
from pipeline.commands.target import target_file
from pipeline.display import duration
from pipeline.errors import PipelineError, UsageError
from pipeline.job import Job
from pipeline.jobfile import build
from pipeline.launch import tell_of_random_weights
from pipeline.model import load_model
from pipeline.outputs.audio import CONTAINERS, encode, join_chunks, pcm16
from pipeline.prepare import Preparer
from pipeline.records import FailedRecord, Record

MOST_SLOTS = 8


def say(options: Namespace, flags: list[str]) -> int:
    """Speaks the text with a model loaded for it alone."""
    job, target = _job(options), target_file(options.output)
    preparer = Preparer(job)
    preparer.job_voice()
    ready = preparer.prepare(Record(id="say", text=options.text, source="command line", line=1))
    if isinstance(ready, FailedRecord):
        raise UsageError(f"{ready.error}: {ready.message}")
    tell_of_random_weights(job.checkpoint)
    slots = min(len(ready.chunks), MOST_SLOTS)
    outcomes = load_model(job.checkpoint, slots=slots, dtype=job.devices.dtype).synthesize(
        preparer.requests(ready), to="audio"
    )
    waveforms = []
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            raise PipelineError(f"{outcome.error}: {outcome.message}")
        assert outcome.audio is not None, outcome.id
        waveforms.append(outcome.audio)
    joined = join_chunks(waveforms, silence_s=job.chunk.silence_s, sample_rate=preparer.sample_rate)
    sound = encode(pcm16(joined), sample_rate=preparer.sample_rate, audio_format=job.audio.format)
    target.write_bytes(sound.data)
    print(f"{options.output}: {duration(sound.num_samples / preparer.sample_rate)} of audio")
    return 0


def _job(options: Namespace) -> Job:
    """The same settings as a job file's, from the flags of `say`."""
    suffix = Path(options.output).suffix.lstrip(".").lower()
    if suffix not in CONTAINERS:
        raise UsageError(f"output {options.output!r} must end with {', '.join(f'.{name}' for name in CONTAINERS)}")
    return build(
        {
            "input": "command line",
            "output": options.output,
            "checkpoint": options.checkpoint,
            "voice": options.voice,
            "seed": options.seed,
            "audio": {"format": suffix},
            "devices": {"dtype": options.dtype},
        }
    )
