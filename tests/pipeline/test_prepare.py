"""Records made ready: chunks that fit, voices found, fingerprints of what matters and of nothing else."""

from dataclasses import replace

import fsspec
import pytest

from bark_model.voices import Voice, VoiceError, voice_npz
from pipeline.job import Chunking, Job
from pipeline.plan import Plan, identity
from pipeline.prepare import Preparer, store_voice, voice_path, worker_preparer
from pipeline.records import FailedRecord, Record
from pipeline.store import Corrupt, LocalStore
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


@pytest.fixture
def npz(checkpoint, tmp_path) -> str:
    """The path of a voice that is a preset of the checkpoint, too."""
    path = tmp_path / "v.npz"
    path.write_bytes(
        voice_npz(Preparer(Job(input=("a",), output="b", checkpoint=checkpoint, voice="random_0")).job_voice())
    )
    return str(path)


def test_a_voice_is_read_from_any_uri(checkpoint, npz):
    with open(npz, "rb") as file, fsspec.open("memory://voices/v.npz", "wb") as copy:
        copy.write(file.read())
    preset = preparer(checkpoint, voice="random_0").job_voice()
    for uri in (npz, f"file://{npz}", "memory://voices/v.npz"):
        found = preparer(checkpoint, voice=uri).job_voice()
        assert (found.name, found.sha256) == (uri, preset.sha256)
    with pytest.raises(
        VoiceError, match=r"^BadVoice 'memory://none\.npz': cannot be read: it is not there, check the path$"
    ):
        preparer(checkpoint, voice="memory://none.npz").job_voice()


def test_the_spelling_of_a_voice_is_not_in_the_fingerprint(checkpoint, npz):
    spelt = {fingerprint(preparer(checkpoint, voice=voice)) for voice in (npz, f"file://{npz}", "random_0")}
    assert len(spelt) == 1


def test_workers_read_the_jobs_voice_from_the_output_and_refuse_another(checkpoint, npz, tmp_path):
    job = Job(input=("a",), output=str(tmp_path / "out"), checkpoint=checkpoint, voice=npz)
    store, voice = LocalStore(job.output), Preparer(job).job_voice()
    facts = identity(job, checkpoint_sha256="", voice_sha256=voice.sha256)
    plan = Plan(generation=0, fingerprint="", identity=facts, shards=(), buckets=1, unit_audio_s=1)
    store_voice(store, job, voice)
    store_voice(store, job, voice)
    (tmp_path / "v.npz").unlink()
    found = worker_preparer(job, plan, store).voice(RECORD)
    assert (found.name, found.sha256) == (npz, voice.sha256)
    kept = tmp_path / "out" / voice_path(voice.sha256)
    other = Voice(name="x", semantic=voice.semantic[1:], coarse=voice.coarse, fine=voice.fine)
    for data, message in [(voice_npz(other), "the run was planned with"), (b"torn", "cannot be read: BadVoice")]:
        kept.write_bytes(data)
        with pytest.raises(Corrupt, match=message):
            worker_preparer(job, plan, store)


def test_a_preset_is_not_copied(checkpoint, tmp_path):
    job = Job(input=("a",), output=str(tmp_path / "out"), checkpoint=checkpoint, voice="random_0")
    store_voice(LocalStore(job.output), job, Preparer(job).job_voice())
    assert not (tmp_path / "out").exists()
