"""What a job reads: text shards, stored tokens, or audio files; the one place that tells them apart."""

from collections.abc import Iterator
from typing import TypeAlias

from bark_model.config import BarkConfig
from bark_model.tokens import MAX_CLIPS
from pipeline.errors import UsageError, excerpt
from pipeline.job import Job
from pipeline.records import FailedRecord, Record
from pipeline.sources import Shard, list_shards, read_shard
from pipeline.sources.audio import list_audio_shards
from pipeline.sources.tokens import StoredRecord, TokenLimits, list_token_shards, read_tokens
from pipeline.store.filesystems import is_local

Found: TypeAlias = Record | StoredRecord | Shard
"""A record as it was found: its text, its stored tokens, or the file that holds its audio."""

PEEKED_SHARDS = 20


def list_input(job: Job) -> tuple[Shard, ...]:
    """The shards of a job, each once."""
    if job.job == "dataset":
        return list_shards(job.input)
    find = list_audio_shards if job.stages.from_ == "audio" else list_token_shards
    shards = {shard.uri: shard for pattern in job.input for shard in find(pattern)}
    return tuple(shards[uri] for uri in sorted(shards))


def read_input(
    job: Job, config: BarkConfig, shard: Shard, model_sha256: str | None = None
) -> Iterator[Found | FailedRecord]:
    """The records of a shard, as a stream. An audio file is a record and is not opened yet.

    With `model_sha256`, stored tokens that say they are of another model are failed records.
    """
    if job.job == "dataset":
        return read_shard(shard)
    if job.stages.from_ == "audio":
        return iter([shard])
    assert job.stages.from_ != "text", job.stages
    return read_tokens(shard, job.stages.from_, token_limits(config, model_sha256))


def token_limits(config: BarkConfig, model_sha256: str | None = None) -> TokenLimits:
    """What a checkpoint accepts as stored tokens, of any model or of one."""
    g = config.generation
    longest = MAX_CLIPS * g.max_new_tokens
    return TokenLimits(
        semantic_vocab_size=g.semantic_vocab_size,
        codebook_size=g.codebook_size,
        n_coarse_codebooks=g.n_coarse_codebooks,
        n_fine_codebooks=g.n_fine_codebooks,
        max_semantic_tokens=longest,
        max_frames=int(longest * g.coarse_per_semantic / g.n_coarse_codebooks),
        model_sha256=model_sha256,
    )


def no_record(job: Job) -> UsageError:
    """What to say of an input whose files are there but hold nothing."""
    return UsageError(f"input {excerpt(', '.join(job.input), 200)} holds no record: are these the right files?")


def check_holds_records(job: Job, config: BarkConfig, shards: tuple[Shard, ...]) -> None:
    """UsageError when there is no record, looking no further than the first.

    Remote Parquet is taken to hold one: reading any of it means copying the file.
    """
    for shard in shards:
        if shard.name.lower().endswith(".parquet") and not is_local(shard.uri):
            return
        if next(read_input(job, config, shard), None) is not None:
            return
    raise no_record(job)


def check_model(job: Job, config: BarkConfig, shards: tuple[Shard, ...], sha256: str) -> None:
    """UsageError when stored tokens are of another model, as the first row of the first shards says.

    So that no job starts in vain; that row by row nothing else slips in, `read_input` sees to.
    """
    if job.job != "reprocess" or job.stages.from_ == "audio":
        return
    for shard in shards[:PEEKED_SHARDS]:
        first = next(read_input(job, config, shard), None)
        made_by = first.chunks[0].model_sha256 if isinstance(first, StoredRecord) else None
        if made_by not in (None, sha256):
            raise UsageError(
                f"{excerpt(shard.name)} holds tokens of the model {made_by[:12]}, {job.checkpoint} is {sha256[:12]}: "
                "add --force to use them all the same"
            )
