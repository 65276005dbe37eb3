"""Records made ready: chunks that fit, voices found, fingerprints of what matters and of nothing else."""

from dataclasses import replace

import pytest

from bark_model.voices import VoiceError
from pipeline.job import Chunking, Job
from pipeline.prepare import Preparer
from pipeline.records import FailedRecord, Record
from pipeline.units import Ready

RECORD = Record(id="x", text="Hello there. How are you today? I am fine.", source="a.txt", line=1)


def preparer(checkpoint: str, **values) -> Preparer:
    return Preparer(Job(input=("a",), output="b", checkpoint=checkpoint, **values))


def fingerprint(one: Preparer, **changes) -> str:
    made = one.prepare(replace(RECORD, **changes))
    assert isinstance(made, Ready)
    return made.fingerprint


def test_requests_carry_the_chunks_and_the_records_own_seed_and_voice(checkpoint):
    one = preparer(checkpoint, chunk=Chunking(max_tokens=16), seed=2, voice="random_0")
    made = one.prepare(replace(RECORD, seed=9, voice="random_1"))
    assert isinstance(made, Ready)
    assert all(one.count_tokens(part.text) <= 16 for part in made.chunks)
    requests = one.requests(made)
    assert [request.id for request in requests] == [f"x/{n}" for n in range(len(made.chunks))]
    assert " ".join(request.text for request in requests) == RECORD.text
    assert {(request.seed, request.voice.name) for request in requests} == {(9, "random_1")}
    jobs = one.requests(one.prepare(RECORD))[0]
    assert (jobs.seed, jobs.voice.name, jobs.attempt) == (2, "random_0", 0)


def test_a_record_may_ask_for_no_voice(checkpoint):
    one = preparer(checkpoint, voice="random_0")
    assert one.voice(replace(RECORD, voice="none")) is None


def test_the_fingerprint_is_of_what_changes_the_rows_and_not_of_the_place(checkpoint):
    one = preparer(checkpoint)
    same = fingerprint(one)
    assert fingerprint(one, source="b.txt", line=9) == same
    for change in (
        {"text": "Bye."},
        {"seed": 1},
        {"voice": "random_0"},
        {"language": "de"},
        {"document": "d"},
        {"index": 1},
    ):
        assert fingerprint(one, **change) != same


@pytest.mark.parametrize("voice", ["nobody", "../x", "/etc/passwd", "http://x/y", "own.npz", "a\nb"])
def test_an_unknown_voice_fails_the_record(checkpoint, voice):
    made = preparer(checkpoint).prepare(replace(RECORD, voice=voice))
    assert isinstance(made, FailedRecord)
    assert (made.stage, made.error, made.source) == ("voice", "UnknownVoice", "a.txt:1")


def test_nothing_to_speak_fails_the_record(checkpoint):
    made = preparer(checkpoint).prepare(replace(RECORD, text=" -- "))
    assert isinstance(made, FailedRecord)
    assert (made.stage, made.error) == ("text", "EmptyText")


def test_the_jobs_voice_must_be_there(checkpoint):
    with pytest.raises(VoiceError, match="UnknownVoice 'random_7': near: random_1, random_0"):
        preparer(checkpoint, voice="random_7").job_voice()
