"""What a job would do, found by reading all of its input without a model: counts, faults, hours, units, cost."""

import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.plan import Plan
from pipeline.records import FailedRecord, id_digest
from pipeline.units import Ready, bucket_of

EXAMPLES = 5


@dataclass
class Estimate:
    """Sums over all records. `done` of them have a result already; `left_s` and `units` count the audio of the rest."""

    records: int = 0
    chunks: int = 0
    tokens: int = 0
    audio_s: float = 0.0
    done: int = 0
    left_s: float = 0.0
    units: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[FailedRecord] = field(default_factory=list)
    documents: set[str] = field(default_factory=set)

    @property
    def failing(self) -> int:
        return sum(self.faults.values())


def result_key(record_id: str, fingerprint: str) -> bytes:
    """16 bytes that name a record and all its result depends on."""
    return id_digest(record_id)[:8] + bytes.fromhex(fingerprint[:16])


def estimate(
    prepared: Iterable[tuple[Ready | FailedRecord, int]], plan: Plan, done: Collection[bytes] = frozenset()
) -> Estimate:
    """Adds up prepared records, each with its number of tokens; `done` holds the `result_key` of those with a result.

    Keeps 16 bytes a record, to find duplicate ids.
    """
    total, ids, contents = Estimate(), array("Q"), array("Q")
    bucket_s = np.zeros(plan.buckets)
    for one, tokens in prepared:
        total.records += 1
        if isinstance(one, FailedRecord):
            _fault(total, one)
            continue
        ids.append(int.from_bytes(id_digest(one.id)[:8], "big"))
        contents.append(int(one.fingerprint[:16], 16))
        total.chunks += len(one.chunks)
        total.tokens += tokens
        total.audio_s += one.audio_s
        if result_key(one.id, one.fingerprint) in done:
            total.done += 1
        else:
            total.left_s += one.audio_s
            bucket_s[bucket_of(one.id, plan.buckets)] += one.audio_s
        if one.record.document is not None:
            total.documents.add(one.record.document)
    if duplicates := _conflicting(ids, contents):
        total.faults["DuplicateId"] += duplicates
    total.units = int(np.ceil(bucket_s / plan.unit_audio_s).sum())
    return total


def _fault(total: Estimate, one: FailedRecord) -> None:
    total.faults[one.error] += 1
    if len(total.examples) < EXAMPLES:
        total.examples.append(one)


def _conflicting(ids: array, contents: array) -> int:
    """How many ids come with more than one content."""
    pairs = np.unique(np.stack([np.array(ids, np.uint64), np.array(contents, np.uint64)], axis=1), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())


def price_lines(audio_s: float, rate: float | None, price: float | None) -> list[str]:
    """Time at `rate` audio seconds a second, and what it costs at `price` an hour."""
    if rate is None:
        return ["give --rate (audio seconds a second, as a run reports it) for a time, and --price per hour for a cost"]
    hours = audio_s / rate / 3600
    cost = "" if price is None else f", about {math.ceil(hours * price * 100) / 100:.2f} at {price:g} an hour"
    return [f"about {hours:.2f} h at {rate:g} x real time{cost}"]
