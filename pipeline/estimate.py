"""What a job would do, found by reading all of its input without a model: counts, faults, hours, units, cost."""

import math
import struct
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.plan import Plan
from pipeline.records import FailedRecord, id_digest
from pipeline.units import Ready

EXAMPLES = 3
"""Lines shown of each kind of failure."""

# An item as it was found: 41 bytes of it are kept until all are there: only then its id is known to be unique.
_PACKED = struct.Struct("=QQIIIIIf?")
_ITEM = np.dtype(
    [
        ("id", "u8"),
        ("content", "u8"),  # of equal ids, the same where the items are
        ("source", "u4"),  # as a number
        ("line", "u4"),
        ("error", "u4"),  # 0 for none, else 1 + its number
        ("chunks", "u4"),
        ("tokens", "u4"),
        ("audio_s", "f4"),
        ("done", "?"),
    ]
)


@dataclass
class Estimate:
    """Sums over all records, each id once. `done` of them have a result already; `left_s` and `units` count the audio
    of the rest. `faults` counts the records that will fail, by error; `examples` are lines that show some of them."""

    records: int = 0
    chunks: int = 0
    tokens: int = 0
    audio_s: float = 0.0
    done: int = 0
    left_s: float = 0.0
    units: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    documents: set[str] = field(default_factory=set)

    @property
    def failing(self) -> int:
        return sum(self.faults.values())


class _Numbers(dict[str, int]):
    """Names by number, in the order they came."""

    def of(self, name: str) -> int:
        return self.setdefault(name, len(self))


def result_key(record_id: str, fingerprint: str) -> bytes:
    """16 bytes that name a record and all its result depends on."""
    return id_digest(record_id)[:8] + bytes.fromhex(fingerprint[:16])


def estimate(
    prepared: Iterable[tuple[Ready | FailedRecord, int]], plan: Plan, done: Collection[bytes] = frozenset()
) -> Estimate:
    """Adds up prepared records, each with its number of tokens; `done` holds the `result_key` of those with a result.

    Equal items of one id count once, different ones are a DuplicateId, as units are dealt.
    """
    total, packed, sources, errors = Estimate(), bytearray(), _Numbers(), _Numbers()
    for one, tokens in prepared:
        if isinstance(one, FailedRecord):
            source, _, line = one.source.rpartition(":")
            error, content, rest = 1 + errors.of(one.error), id_digest(one.error)[:8], (0, 0, 0.0, False)
            total.faults[one.error] += 1
            if total.faults[one.error] <= EXAMPLES:
                total.examples.append(f"{one.source}: {one.error}: {one.message[:100]}")
        else:
            source, line, error = one.record.source, one.record.line, 0
            key = result_key(one.id, one.fingerprint)
            content, rest = key[8:], (len(one.chunks), tokens, one.audio_s, key in done)
            if one.record.document is not None:
                total.documents.add(one.record.document)
        numbers = (int.from_bytes(part, "big") for part in (id_digest(one.id)[:8], content))
        packed += _PACKED.pack(*numbers, sources.of(source), int(line), error, *rest)
    if packed:
        _add_up(total, np.frombuffer(packed, _ITEM), plan, list(sources), list(errors))
    return total


def _add_up(total: Estimate, items: np.ndarray, plan: Plan, sources: list[str], errors: list[str]) -> None:
    """Counts each id once, as the first of its equal items or as a DuplicateId."""
    order = np.argsort(items["id"], kind="stable")
    ids, contents = items["id"][order], items["content"][order]
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    ends = np.append(starts[1:], len(items))
    is_other = contents != np.repeat(contents[starts], ends - starts)
    conflicts = np.logical_or.reduceat(is_other, starts)
    kept = items[order[starts][~conflicts]]
    left = kept[(kept["error"] == 0) & ~kept["done"]]
    bucket_s = np.bincount((left["id"] % np.uint64(plan.buckets)).astype(np.int64), left["audio_s"], plan.buckets)
    total.records = len(starts)
    total.chunks, total.tokens = int(kept["chunks"].sum()), int(kept["tokens"].sum())
    total.audio_s, total.left_s = float(kept["audio_s"].sum(dtype=float)), float(bucket_s.sum())
    total.done, total.units = int(kept["done"].sum()), int(np.ceil(bucket_s / plan.unit_audio_s).sum())
    counts = np.bincount(kept["error"], minlength=1 + len(errors))[1:].tolist()
    total.faults = +Counter(dict(zip(errors, counts, strict=True)) | {"DuplicateId": int(conflicts.sum())})
    for group in np.flatnonzero(conflicts)[:EXAMPLES]:
        same_id = slice(starts[group], ends[group])
        pair = items[order[same_id][[0, is_other[same_id].argmax()]]]
        first, second = (f"{sources[item['source']]}:{item['line']}" for item in pair)
        total.examples.append(f"{first}: DuplicateId: {second} is another record with this id: make ids unique")


def price_lines(audio_s: float, rate: float | None, price: float | None) -> list[str]:
    """Time at `rate` audio seconds a second, and what it costs at `price` an hour."""
    if rate is None:
        return ["give --rate (audio seconds a second, as a run reports it) for a time, and --price per hour for a cost"]
    hours = audio_s / rate / 3600
    cost = "" if price is None else f", about {math.ceil(hours * price * 100) / 100:.2f} at {price:g} an hour"
    return [f"about {hours:.2f} h at {rate:g} x real time{cost}"]
