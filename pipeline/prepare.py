"""Record -> what can be synthesised: its chunks, its voice found, its fingerprint; or the reason why not."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

from bark_model.outcomes import Request
from bark_model.text import load_tokenizer
from bark_model.voices import MAX_VOICE_BYTES, Voice, VoiceError, load_voice, voice_npz
from pipeline.chunking import HARD_CAP_TOKENS, chunk, estimate_seconds
from pipeline.errors import UsageError, excerpt
from pipeline.inputs import Found
from pipeline.job import NO_VOICE, STAGES, Job
from pipeline.model import open_checkpoint
from pipeline.outputs.tokens import TokenRow
from pipeline.plan import Plan, digest
from pipeline.records import Chunk, FailedRecord, Record
from pipeline.sources import Shard
from pipeline.sources.shards import one_line
from pipeline.sources.tokens import StoredRecord
from pipeline.store import Corrupt, Store, StoreError
from pipeline.store.filesystems import filesystem
from pipeline.units import Ready

_PRESET = re.compile(r"[\w-]+(/[\w-]+)*")
_BYTES_PER_AUDIO_S = 32_000  # of a WAV or FLAC file at 24 kHz, between the two


def read_voice(uri: str) -> bytes:
    """The bytes of an `.npz` at a path or URI, no more than a voice may have; OSError for whatever goes wrong."""
    fs, path = filesystem(uri)
    try:
        with fs.open(path, "rb") as file:
            return cast(bytes, file.read(MAX_VOICE_BYTES + 1))
    except StoreError:
        raise
    except FileNotFoundError as error:
        raise OSError("it is not there, check the path") from error
    except Exception as error:  # every file system raises its own
        raise OSError(f"{one_line(error)}, check its permissions and the network") from error


class Preparer:
    """Holds what preparing needs of a job: tokenizer, limits and voices. No weights, no jax.

    `read_voice` gives the bytes of the job's own `.npz`.
    """

    def __init__(self, job: Job, read_voice: Callable[[str], bytes] = read_voice):
        self._job, self._read_voice = job, read_voice
        checkpoint = open_checkpoint(job.checkpoint)
        self._folder, self.config = checkpoint.folder, checkpoint.config
        self._tokenizer = load_tokenizer(self._folder)
        g = self.config.generation
        self.sample_rate = g.sample_rate
        self.max_tokens = min(job.chunk.max_tokens or g.chunk_tokens, HARD_CAP_TOKENS)
        if self.max_tokens > g.max_input_semantic_length:
            raise UsageError(
                f"chunk.max_tokens is {self.max_tokens}, {job.checkpoint} reads at most {g.max_input_semantic_length}: "
                "lower it"
            )
        self._load = lru_cache(maxsize=256)(self._load_voice)

    def job_voice(self) -> Voice | None:
        """The voice that the job names; VoiceError with near names when there is none such."""
        return self._load(self._job.voice or NO_VOICE)

    def voice(self, record: Record) -> Voice | None:
        """A record's voice; VoiceError when there is none such.

        The job may name an `.npz`; a record names presets only, so that no text file makes a worker open files.
        """
        if not self._uses_voice():
            return None
        name = self._job.voice_of(record.voice)
        if name != self._job.voice and not _PRESET.fullmatch(name):
            raise VoiceError(f"UnknownVoice {excerpt(name)}: a record names a preset of the checkpoint, or none")
        return self._load(name)

    def _uses_voice(self) -> bool:
        """Whether a stage runs that reads the voice; decoding and encoding do not."""
        return STAGES.index(self._job.stages.from_) < STAGES.index("fine")

    def _load_voice(self, name: str) -> Voice | None:
        return None if name == NO_VOICE else load_voice(name, self._folder, self.config.generation, self._read_voice)

    def prepare(self, found: Found) -> Ready | FailedRecord:
        """The record with its chunks, estimate and fingerprint, or the failure of its text or voice."""
        if isinstance(found, Shard):
            return self._recording(found)
        stored = found.chunks if isinstance(found, StoredRecord) else ()
        record = found.record if isinstance(found, StoredRecord) else found
        try:
            voice = self.voice(record)
        except VoiceError as error:
            kind, _, what = str(error).partition(" ")
            return _failure(record, "voice", kind, f"voice {what}")
        chunks = tuple(map(_stored_chunk, stored)) if stored else self._chunks(record)
        if not chunks:
            return _failure(record, "text", "EmptyText", f"text {excerpt(record.text)} has nothing to speak")
        return Ready(
            record=record,
            chunks=chunks,
            audio_s=sum(map(self._seconds, stored)) or sum(estimate_seconds(one.text) for one in chunks),
            fingerprint=record_fingerprint(record, voice, stored),
            stored=stored,
        )

    def _recording(self, shard: Shard) -> Ready:
        record = Record(id=shard.name, text="", source=shard.name, line=1)
        return Ready(
            record=record,
            chunks=(Chunk(text="", start=0, end=0),),
            audio_s=shard.size_bytes / _BYTES_PER_AUDIO_S,
            fingerprint=digest([shard.name, shard.identity]),
            recording=shard,
        )

    def _chunks(self, record: Record) -> tuple[Chunk, ...]:
        language = record.language or self._job.language
        return chunk(record.text, self._token_spans, limit_tokens=self.max_tokens, language=language)

    def _seconds(self, row: TokenRow) -> float:
        g = self.config.generation
        if row.semantic is not None:
            return len(row.semantic) / g.semantic_rate_hz
        codes = row.coarse if row.coarse is not None else row.fine
        return 0.0 if codes is None else codes.shape[1] / g.coarse_rate_hz

    def requests(self, ready: Ready) -> list[Request]:
        """A request a chunk. The ids, with seed and attempt, make the random keys: never change how they are made."""
        rows = ready.stored or _NOTHING * len(ready.chunks)
        return [
            Request(
                id=chunk_id(ready.id, number),
                text=part.text,
                semantic=given.semantic,
                coarse=given.coarse,
                fine=given.fine,
                voice=self.voice(ready.record),
                seed=self._job.seed_of(ready.record.seed),
                attempt=max(ready.attempt, given.attempt),
                sampling=self._job.sampling,
            )
            for number, (part, given) in enumerate(zip(ready.chunks, rows, strict=True))
        ]

    def count_tokens(self, text: str) -> int:
        """How many of a clip's tokens a text takes."""
        return len(self._token_spans(text))

    def _token_spans(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.encode(text, add_special_tokens=False).offsets


def voice_path(sha256: str) -> str:
    """Where the output keeps the job's own `.npz`, by the digest of its tokens."""
    return f"_run/voices/{sha256}.npz"


def store_voice(store: Store, job: Job, voice: Voice | None) -> None:
    """Puts the job's own `.npz` into the output, where every worker can read it."""
    if voice is not None and voice.name == job.voice and voice.name.endswith(".npz"):
        path = voice_path(voice.sha256)
        if store.size(path) is None:
            store.create(path, voice_npz(voice))


def worker_preparer(job: Job, plan: Plan, store: Store) -> Preparer:
    """What prepares records on a worker, which sees no file of the launcher: its `.npz` is the output's copy.

    Corrupt when the job's voice is not the planned one.
    """
    planned = plan.identity["voice"]
    preparer = Preparer(job, lambda _: store.read(voice_path(planned)))
    try:
        voice = preparer.job_voice()
    except VoiceError as error:
        raise Corrupt(f"{store.uri}: the job's voice cannot be read: {error}: run again into a new output") from error
    found = voice and voice.sha256
    if found != planned:
        raise Corrupt(
            f"{store.uri}: the job's voice has sha256 {excerpt(found)}, the run was planned with {excerpt(planned)}: "
            "use the same checkpoint on every worker"
        )
    return preparer


_NOTHING = (TokenRow(id="", record_id=""),)


def chunk_id(record_id: str, number: int) -> str:
    """The id of a record's chunk, unique among all: `book-7/0`."""
    return f"{record_id}/{number}"


def _stored_chunk(row: TokenRow) -> Chunk:
    return Chunk(text=row.text or "", start=row.source_start or 0, end=row.source_end or 0)


def record_fingerprint(record: Record, voice: Voice | None, stored: Sequence[TokenRow] = ()) -> str:
    """Digest of everything of a record that changes its rows; where it was read is not among it."""
    own = (record.text, record.language, record.seed, record.document, record.index)
    tokens = [
        [None if array is None else array.tobytes().hex() for array in (row.semantic, row.coarse, row.fine)]
        for row in stored
    ]
    return digest([*own, voice and voice.sha256, *tokens])


def _failure(record: Record, stage: str, error: str, message: str) -> FailedRecord:
    where = f"{record.source}:{record.line}"
    return FailedRecord(id=record.id, source=where, stage=stage, error=error, message=message)
