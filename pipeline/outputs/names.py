"""File names for records: safe on every disk, and never the id itself, which may be anything."""

import re
import unicodedata

from pipeline.records import id_digest

_SLUG_LIMIT = 40
_OURS = re.compile(
    r"audio/(\d{6}/)?([a-z0-9-]{1,40}-)?[0-9a-f]{16}-[0-9a-f]{8}\.(flac|wav|mp3|opus)"
    r"|(tokens|audio)/[0-9a-f]{16}\.parquet|failed/[0-9a-f]{16}\.jsonl"
)
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")


def safe_name(record_id: str) -> str:
    """A readable start and 16 digits of the id's digest, such as `chapter-1-intro-3b1c0a9df2e87765`.

    Only a-z, 0-9 and dashes, at most 57 characters: ids that differ in case, in Unicode form or in dots alone keep
    names that differ, on disks that fold them too.
    """
    plain = unicodedata.normalize("NFKD", record_id[:200]).encode("ascii", "ignore").decode().lower()
    slug = _NOT_PLAIN.sub("-", plain).strip("-")[:_SLUG_LIMIT].strip("-")
    digest = id_digest(record_id).hex()[:16]
    return f"{slug}-{digest}" if slug else digest


def audio_file_path(record_id: str, pcm_sha256: str, audio_format: str, folder: str = "") -> str:
    """Where a record's audio lies below the output. Other audio of the same record gets another name."""
    return f"audio/{folder}{'/' if folder else ''}{safe_name(record_id)}-{pcm_sha256[:8]}.{audio_format}"


def content_path(kind: str, sha256: str, suffix: str) -> str:
    """Where a file that is named by its content lies: `tokens/<16 digits>.parquet`."""
    return f"{kind}/{sha256[:16]}.{suffix}"


def is_ours(path: str) -> bool:
    """Whether a file of an output has a name that only a run gives: no user's own file does."""
    return _OURS.fullmatch(path) is not None
