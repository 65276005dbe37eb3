"""Record -> what can be synthesised: its chunks, its voice found, its fingerprint; or the reason why not."""

import re
from functools import lru_cache

from bark_model.outcomes import Request
from bark_model.text import load_tokenizer
from bark_model.voices import Voice, VoiceError, load_voice
from pipeline.chunking import HARD_CAP_TOKENS, chunk, estimate_seconds
from pipeline.errors import UsageError, excerpt
from pipeline.job import Job
from pipeline.model import open_checkpoint
from pipeline.plan import digest
from pipeline.records import FailedRecord, Record
from pipeline.units import Ready, Tokens

NO_VOICE = "none"
_PRESET = re.compile(r"[\w-]+(/[\w-]+)*")


class Preparer:
    """Holds what preparing needs of a job: tokenizer, limits and voices. No weights, no jax."""

    def __init__(self, job: Job):
        self._job = job
        checkpoint = open_checkpoint(job.checkpoint)
        self._folder, self._config = checkpoint.folder, checkpoint.config
        self._tokenizer = load_tokenizer(self._folder)
        g = self._config.generation
        self.sample_rate = g.sample_rate
        self.max_tokens = min(job.chunk.max_tokens or g.chunk_tokens, HARD_CAP_TOKENS)
        if self.max_tokens > g.max_input_semantic_length:
            raise UsageError(
                f"chunk.max_tokens is {self.max_tokens}, {job.checkpoint} reads at most {g.max_input_semantic_length}: "
                "lower it"
            )
        self._load = lru_cache(maxsize=256)(self._load_voice)

    def voice(self, name: str | None) -> Voice | None:
        """A record's voice, or the job's when it names none; VoiceError with near names when there is none such.

        The job may name an `.npz`; a record names presets only, so that no text file makes a worker open files.
        """
        if name in (None, self._job.voice):
            return self._load(self._job.voice)
        if not _PRESET.fullmatch(name):
            raise VoiceError(f"UnknownVoice {excerpt(name)}: a record names a preset of the checkpoint, or none")
        return self._load(name)

    def _load_voice(self, name: str) -> Voice | None:
        return None if name == NO_VOICE else load_voice(name, self._folder, self._config.generation)

    def prepare(self, record: Record) -> Ready | FailedRecord:
        """The record with its chunks, estimate and fingerprint, or the failure of its text or voice."""
        try:
            voice = self.voice(record.voice)
        except VoiceError as error:
            return _failure(record, "voice", str(error).split()[0], str(error))
        language = record.language or self._job.language
        chunks = chunk(record.text, self._token_spans, limit_tokens=self.max_tokens, language=language)
        if not chunks:
            return _failure(record, "text", "EmptyText", f"text {excerpt(record.text)} has nothing to speak")
        return Ready(
            record=record,
            chunks=chunks,
            audio_s=sum(estimate_seconds(one.text) for one in chunks),
            fingerprint=record_fingerprint(record, voice),
        )

    def requests(self, ready: Ready) -> list[Request]:
        """A request a chunk. The ids, with seed and attempt, make the random keys: never change how they are made."""
        tokens = ready.tokens or (Tokens(),) * len(ready.chunks)
        seed = self._job.seed if ready.record.seed is None else ready.record.seed
        return [
            Request(
                id=chunk_id(ready.id, number),
                text=part.text,
                semantic=given.semantic,
                coarse=given.coarse,
                fine=given.fine,
                voice=self.voice(ready.record.voice),
                seed=seed,
                attempt=ready.attempt,
                sampling=self._job.sampling,
            )
            for number, (part, given) in enumerate(zip(ready.chunks, tokens, strict=True))
        ]

    def count_tokens(self, text: str) -> int:
        """How many of a clip's tokens a text takes."""
        return len(self._token_spans(text))

    def _token_spans(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.encode(text, add_special_tokens=False).offsets


def chunk_id(record_id: str, number: int) -> str:
    """The id of a record's chunk, unique among all: `book-7/0`."""
    return f"{record_id}/{number}"


def record_fingerprint(record: Record, voice: Voice | None) -> str:
    """Digest of everything of a record that changes its rows; where it was read is not among it."""
    own = (record.text, record.language, record.seed, record.document, record.index)
    return digest([*own, voice and [voice.name, voice.sha256]])


def _failure(record: Record, stage: str, error: str, message: str) -> FailedRecord:
    where = f"{record.source}:{record.line}"
    return FailedRecord(id=record.id, source=where, stage=stage, error=error, message=message)
