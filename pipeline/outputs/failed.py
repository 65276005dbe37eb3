"""Failed records as JSON lines: one a record, short, and without secrets."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from pipeline.records import FailedRecord

_MESSAGE_LIMIT = 300
_SPACES = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_SECRETS = re.compile(
    # token=..., Authorization: Bearer ...; a bare "token: 10001" is one of Bark's
    r"(?P<name>(?:authorization|password|passwd|secret|(?:access|auth|api|id|refresh)[_-]?token|[?&]token|"
    r"(?:api|access|secret)[_-]?key|signature|[?&]sig|credential)[\"']?\s*[=:]\s*[\"']?(?:bearer\s+|basic\s+)?+)"
    r"(?!\[hidden\])[^\s\"'&,;]{4,}"
    r"|(?P<user>://)[^/\s:@]+:[^/\s@]+(?=@)"  # https://user:password@host
    r"|\b(?:ya29\.[\w-]{8,}|hf_\w{16,}|gh[pousr]_\w{16,}|AKIA[A-Z0-9]{12,}|AIza[\w-]{20,})"  # well-known kinds
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*",
    re.IGNORECASE | re.DOTALL,
)


def excerpt_line(message: str, limit: int = _MESSAGE_LIMIT) -> str:
    """A message as one short line, with what looks like a secret hidden."""
    line = _SECRETS.sub(lambda found: (found["name"] or found["user"] or "") + "[hidden]", message[: 20 * limit])
    line = _SPACES.sub(" ", line).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def failed_lines(failed: Sequence[FailedRecord]) -> bytes:
    """The `failed/*.jsonl` file of the records, in the order given."""
    lines = (json.dumps(clean(record), ensure_ascii=True) for record in failed)
    return "".join(f"{line}\n" for line in lines).encode()


def clean(record: FailedRecord) -> dict:
    """The record as it may be shown: its id exact, its message an excerpt."""
    return asdict(record) | {"message": excerpt_line(record.message), "error": excerpt_line(record.error, 80)}


def read_failed(lines: Iterable[bytes]) -> Iterator[FailedRecord]:
    """The records of a `failed/*.jsonl` file."""
    for line in lines:
        yield FailedRecord(**json.loads(line))
