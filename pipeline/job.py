"""The job file as one frozen object: every key, its default and its limits.

Keys here are the keys of the YAML file and, with dots, the flags of the command line. `jobfile.py` reads them.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from bark_model.outcomes import STAGES, Stage
from bark_model.settings import Sampling
from pipeline.chunking import LANGUAGES, language_code
from pipeline.errors import UsageError, excerpt, nearest
from pipeline.runners import beam_runner

NO_VOICE = "none"
UNIT_S, UNIT_S_A_SLOT = 600, 60
"""Estimated seconds of audio of a unit at least, and for each slot: about eight clips of eight seconds."""

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)%")


def _within(name: str, value: float, low: float, high: float, remedy: str) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} is {excerpt(value)}, must be {low:g} to {high:g}: {remedy}")


def _language(tag: str) -> str:
    code = language_code(tag)
    if code is None:
        hint = nearest(tag, LANGUAGES)
        raise UsageError(f"language is {excerpt(tag)}, must be one of {' '.join(LANGUAGES)}{hint}")
    return code


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Which stages run. `reprocess` starts from stored tokens, or from audio that is encoded first."""

    from_: Stage = "text"
    to: Stage = "audio"

    def __post_init__(self):
        if self.from_ != "audio" and STAGES.index(self.to) <= STAGES.index(self.from_):
            raise UsageError(
                f"stages.to is {self.to!r}, must come after stages.from {self.from_!r}: {' > '.join(STAGES)}"
            )
        if self.from_ == "audio" and self.to != "fine":
            raise UsageError(f"stages.to is {self.to!r}, audio is encoded into codes only: set stages.to to 'fine'")


@dataclass(frozen=True, kw_only=True)
class Chunking:
    """How a long text is cut into clips. `max_tokens` null takes the checkpoint's own limit."""

    max_tokens: int | None = None
    silence_s: float = 0.25

    def __post_init__(self):
        if self.max_tokens is not None:
            _within("chunk.max_tokens", self.max_tokens, 4, 256, "Bark speaks best up to about 37")
        _within("chunk.silence_s", self.silence_s, 0, 10, "0.25 is the usual pause between sentences")


@dataclass(frozen=True, kw_only=True)
class Audio:
    """What the audio is written as, and whether as a file a record or inside Parquet."""

    format: Literal["flac", "wav", "mp3", "opus"] = "flac"
    where: Literal["files", "parquet"] = "files"


@dataclass(frozen=True, kw_only=True)
class Devices:
    """`slots` rows are decoded at once on each device: a compiled shape, part of a result's identity.

    `timeout_s` limits one call of the model, which is one unit of work. `compilation_cache` is a folder of the
    workers where compiled programs are kept, so that a second start compiles nothing. `low_memory` holds one of the
    four networks at a time on a device, the others on the host; neither of the three changes a result.
    """

    slots: int = 16
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    timeout_s: float = 14400
    compilation_cache: str | None = None
    low_memory: bool = False

    def __post_init__(self):
        _within("devices.slots", self.slots, 1, 1024, "16 suits most accelerators")
        _within("devices.timeout_s", self.timeout_s, 1, 604800, "14400 is four hours")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, checked at construction. `input` is one glob or several; `voice` a preset's name, an .npz or none.

    A record's own voice and seed come before the job's. In `reprocess` it is the other way round: there the records'
    are those of the run that made them, and the job's, where given, take their place.
    """

    job: Literal["dataset", "reprocess"] = "dataset"
    input: tuple[str, ...]
    output: str
    checkpoint: str = "demo"
    voice: str | None = None
    language: str | None = None
    seed: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stages: Stages = field(default_factory=Stages)
    chunk: Chunking = field(default_factory=Chunking)
    audio: Audio = field(default_factory=Audio)
    devices: Devices = field(default_factory=Devices)
    unit_audio_s: float | None = None
    max_failed: str = "1%"
    runner: str = "local"

    def __post_init__(self):
        if not self.input:
            raise UsageError("input is empty, must name a file or a glob such as texts/*.txt")
        for name, value in [
            *(("input", pattern) for pattern in self.input),
            ("output", self.output),
            ("checkpoint", self.checkpoint),
            ("voice", "none" if self.voice is None else self.voice),
        ]:
            if not value.strip() or not value.isprintable():
                raise UsageError(f"{name} is {excerpt(value)}, must be a path or a name")
        _within("seed", self.seed or 0, 0, 2**32 - 1, "any whole number gives its own reading")
        if self.unit_audio_s is not None:
            _within("unit_audio_s", self.unit_audio_s, 1, 86400, "600 makes units of about ten minutes of audio")
        if self.language is not None:
            object.__setattr__(self, "language", _language(self.language))  # en-US and en are one configuration
        self.allowed_failures(0)
        beam_runner(self.runner)
        if self.job == "dataset" and self.stages.from_ != "text":
            raise UsageError(
                f"stages.from is {self.stages.from_!r}, a dataset job starts from 'text': set job: reprocess"
            )
        if self.job == "reprocess" and self.stages.from_ == "text":
            raise UsageError("stages.from is 'text', a reprocess job starts from semantic, coarse, fine or audio")

    @property
    def unit_s(self) -> float:
        """Estimated audio of a unit of work: as asked, or enough for many clips a slot."""
        return self.unit_audio_s or max(UNIT_S, UNIT_S_A_SLOT * self.devices.slots)

    def voice_of(self, voice: str | None) -> str:
        """The name of a record's voice, given its own."""
        first, second = (self.voice, voice) if self.job == "reprocess" else (voice, self.voice)
        return first or second or NO_VOICE

    def seed_of(self, seed: int | None) -> int:
        """A record's seed, given its own."""
        first, second = (self.seed, seed) if self.job == "reprocess" else (seed, self.seed)
        return first if first is not None else second or 0

    def allowed_failures(self, records: int) -> int:
        """How many of `records` may fail before the run stops; `max_failed` is a percentage or a whole number."""
        if percent := _PERCENT.fullmatch(self.max_failed):
            _within("max_failed", float(percent[1]), 0, 100, "100% never stops a run")
            return int(float(percent[1]) * records / 100)
        if self.max_failed.isascii() and self.max_failed.isdigit() and len(self.max_failed) <= 18:
            return int(self.max_failed)
        raise UsageError(
            f"max_failed is {excerpt(self.max_failed)}, must be like 1% or a number of records: 100% never stops a run"
        )
