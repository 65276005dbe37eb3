"""SHA256SUMS beside a checkpoint's files: what `sha256sum -c` reads, written on saving and checked on loading."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

SUMS = "SHA256SUMS"
MAX_SUMS_BYTES = 16 * 2**20
_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")


class SumError(ValueError):
    """A file is not the one that was written, or SHA256SUMS itself cannot be read; one line that names it."""


def sha256_of(path: Path) -> str:
    """The digest of a file; raises SumError when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SumError(f"{path} cannot be read: {error}") from error


def recorded_sums(folder: Path) -> dict[str, str]:
    """Relative path -> digest, as recorded; empty without a SHA256SUMS."""
    path = folder / SUMS
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_SUMS_BYTES:
            raise SumError(f"{path} has {path.stat().st_size} bytes, more than {MAX_SUMS_BYTES}: it is damaged")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SumError(f"{path} cannot be read: {error}") from error
    recorded = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if not match:
            raise SumError(f"{path}:{number} is no line of `sha256sum`: the file is damaged, fetch or convert it again")
        recorded[match[2]] = match[1]
    return recorded


def check_sum(folder: Path, name: str, found: str, recorded: Mapping[str, str]) -> None:
    """Refuses a file whose digest is not the recorded one; a file that is not recorded passes."""
    if recorded.get(name, found) != found:
        raise SumError(
            f"{folder / name} has sha256 {found[:12]}..., {SUMS} says {recorded[name][:12]}...: "
            "the file is damaged, fetch it again"
        )


def sums_text(sums: Mapping[str, str]) -> str:
    """The content of a SHA256SUMS."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
