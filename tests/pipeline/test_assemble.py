"""Outcomes -> rows: a record is whole or it fails, and each row says what made it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bark_model.outcomes import Failure, Result
from pipeline.assemble import Made, assemble
from pipeline.isolation import Outcome
from pipeline.job import Job
from pipeline.records import Chunk, FailedRecord, Record
from pipeline.units import Ready, Unit

MADE = Made(
    job=Job(input=("a",), output="b", seed=4),
    model_sha256="c" * 64,
    sample_rate=24000,
    voice=lambda record: None,
)


def ready(record_id: str, chunks: int = 1, **own) -> Ready:
    record = Record(id=record_id, text="One. " * chunks, source="a.txt", line=3, **own)
    parts = tuple(Chunk(text="One.", start=5 * n, end=5 * n + 4) for n in range(chunks))
    return Ready(record=record, chunks=parts, audio_s=1, fingerprint="f")


def outcome(chunk_id: str, **changes) -> Outcome:
    fine = np.zeros((8, 3), np.int32)
    made = Result(id=chunk_id, semantic=np.arange(2), coarse=fine[:2], fine=fine, audio=np.ones(960, np.float32) / 2)
    return Outcome(made=replace(made, **changes), slots=8)


def failure(chunk_id: str) -> Outcome:
    return Outcome(made=Failure(id=chunk_id, stage="semantic", error="NoSpeech", message="nothing"), slots=8)


def test_rows_say_what_made_them():
    unit = Unit(name="u", records=(ready("x", 2, document="d", index=7, language="de"),))
    [record], failed = assemble(unit, [outcome("x/0", stop_reason="eos"), outcome("x/1")], MADE)
    assert ([row.id for row in record.rows], failed, len(record.waveforms)) == (["x/0", "x/1"], [], 2)
    row = record.rows[1]
    assert (row.record_id, row.document, row.index, row.language, row.seed) == ("x", "d", 7, "de", 4)
    assert (row.source, row.source_start, row.source_end, row.slots, row.num_frames) == ("a.txt", 5, 9, 8, 3)
    assert (row.model, row.model_sha256, row.dtype) == ("demo", "c" * 64, "float32")
    assert json.loads(row.sampling)["coarse"] == {"temperature": 0.7, "top_k": None, "top_p": None}


def test_one_failed_chunk_fails_its_record_and_no_other():
    known = FailedRecord(id="k", source="s", stage="read", error="BadJson", message="m")
    unit = Unit(name="u", records=(ready("x", 2), known, replace(ready("y"), attempts=2), ready("z")))
    outcomes = [outcome("x/0"), failure("x/1"), failure("y/0"), outcome("z/0")]
    finished, failed = assemble(unit, outcomes, MADE)
    assert [record.rows[0].record_id for record in finished] == ["z"]
    expected = {"source": "a.txt:3", "stage": "semantic", "error": "NoSpeech"}
    assert failed == [
        known,
        FailedRecord(id="x", message="chunk 2 of 2: nothing", **expected),
        FailedRecord(id="y", message="nothing", attempts=2, **expected),
    ]


@pytest.mark.parametrize(
    ("audio", "message"), [([0.1, np.nan], "the audio holds NaN or infinity"), ([], "the audio is empty")]
)
def test_audio_that_no_file_may_hold_fails(audio, message):
    unit = Unit(name="u", records=(ready("x"),))
    finished, [failed] = assemble(unit, [outcome("x/0", audio=np.array(audio, np.float32))], MADE)
    assert (finished, failed.stage, failed.error, failed.message) == ([], "audio", "NonFinite", message)


def test_a_run_that_stops_at_tokens_has_no_waveforms():
    unit = Unit(name="u", records=(ready("x"),))
    [record], _ = assemble(unit, [outcome("x/0", audio=None, fine=None)], MADE)
    assert (record.waveforms, record.rows[0].num_frames, record.rows[0].fine) == ((), 3, None)
