"""A small finished run, made without a model: what the tests of outputs, verify and export read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bark_model.axes import Waveform
from pipeline.commit import UnitCommit, commit_unit
from pipeline.manifest import Manifest, publish
from pipeline.outputs.tokens import TokenRow
from pipeline.outputs.unit_files import Layout
from pipeline.plan import Plan
from pipeline.records import FailedRecord
from pipeline.store import Store

FINGERPRINT = "f0" * 32


@dataclass(frozen=True)
class Finished:
    rows: tuple[TokenRow, ...]
    waveforms: tuple[Waveform, ...]


def finished(record_id: str, text: str = "Hello there. How are you?", *, audio: bool = True) -> Finished:
    """A record of one chunk a sentence, with tokens and half a second of noise made from its id and text."""
    rows, waveforms, start = [], [], 0
    for number, part in enumerate(text.split(". ")):
        rng = np.random.default_rng([*record_id.encode(), *part.encode(), number])
        rows.append(
            TokenRow(
                id=f"{record_id}#{number}",
                record_id=record_id,
                text=part,
                language="en",
                semantic=rng.integers(0, 10000, 25),
                coarse=rng.integers(0, 1024, (2, 38)),
                fine=rng.integers(0, 1024, (8, 38)),
                num_frames=38,
                stop_reason="eos",
                model="demo",
                source="in.txt",
                source_start=start,
                source_end=start + len(part),
            )
        )
        waveforms.append((rng.standard_normal(12000) / 8).astype(np.float32))
        start += len(part) + 2
    return Finished(tuple(rows), tuple(waveforms) if audio else ())


def plan(generation: int, buckets: int) -> Plan:
    return Plan(
        generation=generation, fingerprint=FINGERPRINT, identity={}, shards=(), buckets=buckets, unit_audio_s=600
    )


def failed(record_id: str) -> FailedRecord:
    return FailedRecord(id=record_id, source="in.txt:9", stage="text", error="EmptyText", message="nothing to say")


def commit(
    store: Store,
    name: str = "0000/000000-00000",
    made: Sequence[Finished] = (),
    not_made: Sequence[FailedRecord] = (),
    layout: Layout | None = None,
) -> UnitCommit:
    """One unit; every record's fingerprint is that of its text."""
    fingerprints = {record.rows[0].record_id: f"text:{record.rows[0].text}" for record in made}
    return commit_unit(
        store,
        name,
        made,
        not_made,
        fingerprint=FINGERPRINT,
        record_fingerprints=fingerprints,
        layout=layout or Layout(),
    )


def small_run(store: Store, layout: Layout | None = None) -> Manifest:
    """Two units of four records that are done and one that failed, published."""
    names = ["0000/000000-00000", "0000/000001-00000"]
    commit(store, names[0], [finished("a"), finished("../b é\n", "Ça va?")], [failed("empty")], layout)
    commit(store, names[1], [finished("A"), finished("d|e", "One | two. Three.")], layout=layout)
    return publish(store, generation=0, fingerprint=FINGERPRINT, commits=names, records=5)


def tiny_run(store: Store) -> Manifest:
    """One unit of a record that is done and one that failed, published."""
    commit(store, made=[finished("a")], not_made=[failed("b")])
    return publish(store, generation=0, fingerprint=FINGERPRINT, commits=["0000/000000-00000"], records=2)
