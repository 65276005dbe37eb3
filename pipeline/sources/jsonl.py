"""`.jsonl`: a JSON object a line. Blank lines are passed over; fields that are not known are left alone."""

import json
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from pipeline.errors import excerpt
from pipeline.records import FailedRecord, Record
from pipeline.sources.fields import RowError, decoded, failed, record, shown, too_long
from pipeline.sources.lines import numbered_lines


def read(stream: BinaryIO, source: str) -> Iterator[Record | FailedRecord]:
    """The records of a JSON Lines file; `source` is the shard's name."""
    for number, line in numbered_lines(stream):
        try:
            if line is None:
                raise too_long()
            text = decoded(line)
            if not text.strip():
                continue
            values = _parse(text)
        except RowError as fault:
            yield failed(source, number, fault)
            continue
        yield record(values, source, number)


def _parse(line: str) -> dict[str, object]:
    try:
        values = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RowError:
        raise
    except json.JSONDecodeError as error:
        raise RowError("BadJson", f"no JSON at column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of over 4300 digits, NaN; nested thousands deep
        raise RowError("BadJson", f"no JSON that can be read: {error}") from error
    if not isinstance(values, dict):
        raise RowError("BadJson", f'line is {shown(values)}, must be an object like {{"text": "..."}}')
    return values


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise RowError("DuplicateKey", f"key {excerpt(twice)} occurs twice: keep one")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
