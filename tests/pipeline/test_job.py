"""The job file: every refusal is one line that names the value, the limit and the remedy."""

# ruff: noqa: E501 (a message a line reads better than folded ones)

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.job import Job
from pipeline.jobfile import build, load, read_mapping, to_mapping
from pipeline.plan import identity

BASE = "input: texts/*.txt\noutput: out\n"


@pytest.fixture
def job_file(tmp_path):
    def write(text: str | bytes = BASE) -> str:
        path = tmp_path / "job.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def test_defaults_are_filled_in(job_file):
    job, flags = load(job_file())
    assert job == Job(input=("texts/*.txt",), output="out")
    assert (job.voice, job.devices.slots, job.sampling.semantic.temperature, flags) == (None, 16, 0.7, [])


def test_flags_override_the_file_and_are_typed_by_their_key(job_file):
    flags = [
        "--sampling.semantic.temperature",
        "1e-3",
        "--output=2024",
        "--sampling.semantic.top_k=null",
        "--seed",
        "7",
    ]
    job, _ = load(job_file(BASE + "seed: 3\nsampling: {semantic: {top_k: 5}}\n"), flags)
    assert (job.sampling.semantic.temperature, job.sampling.semantic.top_k) == (0.001, None)
    assert (job.output, job.seed) == ("2024", 7)


def test_low_memory_is_true_or_false_and_changes_no_result(job_file):
    job, _ = load(job_file(BASE + "devices: {low_memory: true}\n"))
    other, _ = load(job_file(), ["--devices.low_memory", "false"])
    assert (job.devices.low_memory, other.devices.low_memory) == (True, False)
    assert identity(job, checkpoint_sha256="", voice_sha256=None) == identity(
        other, checkpoint_sha256="", voice_sha256=None
    )


@pytest.mark.parametrize(
    ("keys", "seconds"),
    [("", 960), ("devices: {slots: 4}\n", 600), ("devices: {slots: 64}\n", 3840), ("unit_audio_s: 5\n", 5)],
)
def test_a_unit_holds_many_clips_a_slot(job_file, keys, seconds):
    job, _ = load(job_file(BASE + keys))
    assert job.unit_s == seconds


@pytest.mark.parametrize("tag", ["en", "en-US", "EN_gb", "en-Latn-US"])
def test_a_language_may_have_its_country(job_file, tag):
    assert load(job_file(), ["--language", tag])[0].language == "en"


def test_input_may_be_a_list(job_file):
    job, _ = load(job_file("input: [a.txt, b/*.jsonl]\noutput: out\n"))
    assert job.input == ("a.txt", "b/*.jsonl")


def test_what_is_stored_reads_back(job_file):
    job, _ = load(job_file(BASE + "job: reprocess\nstages: {from: semantic, to: fine}\n"))
    assert build(to_mapping(job)) == job


def test_beam_options_are_checked_and_kept_apart(job_file):
    text = BASE + "direct_num_workers: 2\nexperiments: [a, b]\nstreaming: false\n"
    job, flags = load(job_file(text), ["--direct_running_mode", "multi_processing"])
    assert flags == [
        "--direct_num_workers=2",
        "--experiments=a",
        "--experiments=b",
        "--direct_running_mode=multi_processing",
    ]
    assert job.runner == "local"


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("", [], "{path} has 0 bytes, a job file has 1 to 1048576"),
        ("- a\n", [], "{path} holds ['a'], must hold keys such as `input: texts/*.txt`"),
        ("input: a\n", [], "the job has no output: add `output: ...` or --output"),
        (BASE + "input: b\n", [], "{path}:3: the key 'input' stands twice"),
        (BASE + "voice: [&a x, *a]\n", [], "{path}:3: aliases are refused"),
        (BASE + "1: x\n", [], "{path}:3: the key 1 is no text"),
        (BASE + "voice: !!python/object/apply:os.system [ls]\n", [], "{path}:3: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        (BASE + "sampling: {semantic: {temprature: 1}}\n", [], "unknown key 'sampling.semantic.temprature': did you mean 'sampling.semantic.temperature' or 'sampling.coarse.temperature'?"),
        (BASE + "outptu: x\n", [], "unknown option 'outptu': did you mean 'output'?"),
        (BASE, ["--direct_num_worker", "2"], "unknown option 'direct_num_worker': did you mean 'direct_num_workers' or 'num_workers'?"),
        (BASE, ["--direct_num_workers", "two"], "Beam option: argument --direct_num_workers: invalid int value: 'two'"),
        (BASE, ["--seed", "x"], "seed is 'x', must be a whole number"),
        (BASE, ["--seed", "-1"], "seed is -1, must be 0 to 4.29497e+09: any whole number gives its own reading"),
        (BASE, ["--seed"], "--seed has no value: write --seed VALUE"),
        (BASE, ["seed", "1"], "'seed' stands where a flag was expected: write --key value"),
        (BASE, ["--sampling.fine.temperature", ".nan"], "sampling.fine.temperature is nan, must be a number"),
        (BASE, ["--sampling.fine.temperature=-1"], "sampling.fine.temperature is -1.0, must be 0 to 100: 0 is greedy, 0.7 is Bark's own"),
        (BASE + "sampling: hot\n", [], "sampling is 'hot', must hold keys such as compat, semantic, coarse, fine"),
        (BASE + "sampling: hot\n", ["--sampling.compat", "suno"], "sampling is 'hot', must hold keys such as compat"),
        (BASE, ["--audio.format", "flacc"], "audio.format is 'flacc', must be one of flac, wav, mp3, opus: did you mean 'flac'?"),
        (BASE, ["--devices.slots", "0"], "devices.slots is 0, must be 1 to 1024: 16 suits most accelerators"),
        (BASE, ["--devices.low_memory", "1"], "devices.low_memory is 1, must be true or false"),
        (BASE, ["--max_failed", "lots"], "max_failed is 'lots', must be like 1% or a number of records: 100% never stops a run"),
        (BASE, ["--max_failed", "101%"], "max_failed is 101.0, must be 0 to 100: 100% never stops a run"),
        (BASE, ["--stages.from", "fine"], "stages.from is 'fine', a dataset job starts from 'text': set job: reprocess"),
        (BASE, ["--job", "reprocess"], "stages.from is 'text', a reprocess job starts from semantic, coarse, fine or audio"),
        (BASE, ["--stages.to", "text"], "stages.to is 'text', must come after stages.from 'text': text > semantic > coarse > fine > audio"),
        (BASE, ["--runner", "dask"], "runner 'dask' is refused, it loses data silently: use local with --direct_num_workers"),
        (BASE, ["--runner", "flnk"], "unknown runner 'flnk': did you mean 'flink'?"),
        (BASE, ["--language", "klingon"], "language is 'klingon', must be one of en de es fr hi it ja ko pl pt ru tr zh"),
        (BASE, ["--language", "eng"], "language is 'eng', must be one of en de es fr hi it ja ko pl pt ru tr zh: did you mean 'en'?"),
        (BASE, ["--voice", " "], "voice is ' ', must be a path or a name"),
        (BASE, ["--output", "a\x1bb"], "output is 'a\\x1bb', must be a path or a name"),
    ],
)  # fmt: skip
def test_refusals(job_file, text, flags, message):
    path = job_file(text)
    with pytest.raises(UsageError) as caught:
        load(path, flags)
    assert str(caught.value) == message.replace("{path}", path)


def test_a_file_that_is_not_there_too_large_or_not_text(job_file, tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml: there is no such job file"):
        load(str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match=r"has 1048600 bytes, a job file has 1 to 1048576"):
        read_mapping(job_file("#" * 1048600))
    with pytest.raises(UsageError, match=r"byte 0 is not UTF-8"):
        read_mapping(job_file(b"\xff\xfe\0"))
    with pytest.raises(UsageError):
        read_mapping(job_file("[" * 5000))


def test_allowed_failures():
    def allowed(max_failed, records):
        return Job(input=("a",), output="b", max_failed=max_failed).allowed_failures(records)

    assert [allowed("1%", 250), allowed("0", 10), allowed("7", 3), allowed("2.5%", 1000)] == [2, 0, 7, 25]


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_job_or_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "job.yaml"
    path.write_bytes(data)
    said = None
    try:
        build(read_mapping(str(path)))
    except UsageError as error:
        said = str(error)
    assert said is None or "\n" not in said


def test_a_job_without_beam_options_needs_no_beam(job_file):
    code = f"import sys; from pipeline.jobfile import load; load({job_file()!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"apache_beam", "jax", "torch"}.isdisjoint(loaded)
