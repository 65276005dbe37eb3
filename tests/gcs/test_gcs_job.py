"""Whole jobs on GCS over HTTP: sources, commit, resume after kills, reprocess, status, verify; and what stops them."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.store import open_store
from tests.gcs.server import BUCKET, FaultProxy, Rule
from tests.lanes import free_port
from tests.pipeline.conftest import TIMINGS, Project, checkpoint, project, spawning

__all__ = ["checkpoint", "project", "spawning"]

TEXTS = "".join(json.dumps({"id": f"r{n}", "text": f"This is record number {n}."}) + "\n" for n in range(6))


@pytest.fixture
def place() -> str:
    """A prefix of its own in the server's bucket."""
    return f"gs://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def job(gcs: str, spawning: Project, place: str) -> Project:
    """Two shards of texts in the bucket, one of their lines bad; the output beside them."""
    with open_store(f"{place}/in") as store:
        store.create("a.jsonl", TEXTS.encode())
        store.create("b.txt", "One line more.\n…\n".encode())
    spawning.values |= {"input": f"{place}/in/*", "output": f"{place}/out", "unit_audio_s": 2}
    return spawning


@pytest.fixture
def here(job: Project, project: Project) -> Project:
    """The same, with runs that stay in this process."""
    return project


def files_of(uri: str) -> dict[str, bytes]:
    """Every file of an output with its bytes, but for those that tell of time."""
    with open_store(uri) as store:
        return {entry.path: store.read(entry.path) for entry in store.list() if entry.path not in TIMINGS}


def shown(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code and outputs of a command, without the name of the place."""
    capsys.readouterr()
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out.replace(arguments[1], "OUT"), said.err


def start(project: Project, *flags: str) -> subprocess.Popen:
    job = str(project.folder / "job.yaml")
    command = [sys.executable, "-m", "pipeline.cli", "run", job, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_job_on_gcs_gives_the_files_of_a_local_one(here: Project, place: str, tmp_path: Path, capsys):
    there, local = f"{place}/out", str(tmp_path / "local")
    assert here.run() == 3
    assert here.run(output=local) == 3
    assert files_of(there) == files_of(local)
    for command in ("status", "verify", "failed"):
        code, out, err = shown(capsys, command, there)
        assert (code, out, err) == shown(capsys, command, local)
        assert (code, err) == (0, "")
        assert out


def test_reprocess_from_gcs_to_gcs(here: Project, place: str, tmp_path: Path, capsys):
    assert here.run() == 3
    values = {"job": "reprocess", "input": f"{place}/out", "stages": {"from": "semantic"}, "voice": "random_0"}
    assert here.run(**values, output=f"{place}/again") == 0
    assert here.run(**values, output=str(tmp_path / "local")) == 0
    assert files_of(f"{place}/again") == files_of(str(tmp_path / "local"))
    assert shown(capsys, "verify", f"{place}/again")[1].startswith("whole: 7 records done")


def test_grown_and_changed_inputs_on_gcs(here: Project, place: str, tmp_path: Path):
    local = str(tmp_path / "local")
    for output in (f"{place}/out", local):
        assert here.run(output=output) == 3
    with open_store(f"{place}/in") as store:
        store.create("c.txt", b"New here.\n")
        store.put("a.jsonl", TEXTS.replace("number 3", "number three").encode())
    for output in (f"{place}/out", local):
        assert here.run(output=output) == 3
    assert files_of(f"{place}/out") == files_of(local)


def test_killed_on_gcs_and_started_again_the_files_are_those_of_a_local_run(job: Project, place: str, tmp_path: Path):
    """The child is killed by a word in a text, then the launcher by us; the next start finishes."""
    with open_store(f"{place}/in") as store:
        store.put("a.jsonl", TEXTS.replace("record", "SLOW record").replace("2.", "2. KILL").encode())
    assert job.run(command="plan") == 0  # writes the job file
    first = start(job, "--unit_audio_s", "1")
    marker = Path(f"{job.notes}.killed")
    while not marker.exists() or not list_commits(place):
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert "_MANIFEST.json" not in files_of(f"{place}/out")
    assert job.run("--unit_audio_s", "1") == 3
    assert job.run("--unit_audio_s", "1", "--output", str(tmp_path / "local")) == 3
    assert files_of(f"{place}/out") == files_of(str(tmp_path / "local"))


def list_commits(place: str) -> list:
    with open_store(f"{place}/out") as store:
        return list(store.list("_run/commits/"))


@pytest.mark.slow
def test_two_runs_at_once_on_gcs_converge(job: Project, place: str, tmp_path: Path):
    assert job.run(command="plan") == 0
    children = [start(job), start(job)]
    endings = [(child.communicate(timeout=120)[1], child.returncode) for child in children]
    assert [code for _, code in endings] == [3, 3], endings
    assert job.run("--output", str(tmp_path / "local")) == 3
    assert files_of(f"{place}/out") == files_of(str(tmp_path / "local"))


def one_line(said: str) -> str:
    """The error of a command, which must be one line and no traceback."""
    lines = [line for line in said.splitlines() if line.startswith("bark-beam: ")]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    return lines[0]


def nth_upload(number: int, last: int) -> Callable[[str, str], bool]:
    """Matches uploads from the n-th that it sees to the `last` one."""
    uploads = itertools.count(1)
    return lambda verb, target: verb == "POST" and "/upload/" in target and number <= next(uploads) <= last


def is_content_of(part: str) -> Callable[[str, str], bool]:
    """Matches reads of the content of objects whose names hold the part."""
    return lambda verb, target: verb == "GET" and part in target and "alt=media" in target


def test_faults_under_a_whole_job_change_nothing(here: Project, place: str, tmp_path: Path, faults: FaultProxy):
    for number, fault in enumerate(("503", "lost", "429", "reset", "408", "lost")):
        faults.rules.append(Rule(fault, nth_upload(3 * number + 1, 99)))
    faults.rules += [Rule(fault, is_content_of("in%2F")) for fault in ("503", "reset")]
    faults.rules += [Rule(fault, is_content_of("commits")) for fault in ("503", "flipped")]
    assert here.run() == 3
    assert [rule.hits for rule in faults.rules] == [1] * 10
    assert here.run(output=str(tmp_path / "local")) == 3
    assert files_of(f"{place}/out") == files_of(str(tmp_path / "local"))


def test_an_input_damaged_on_its_way_is_not_used(here: Project, place: str, faults: FaultProxy, capsys):
    rule = Rule("flipped", is_content_of("in%2Fa.jsonl"))
    faults.rules.append(rule)
    assert here.run() == 2
    assert "a.jsonl' was changed or damaged since the run was planned: start the run again" in one_line(
        capsys.readouterr().err
    )
    assert (rule.hits, list_commits(place)) == (1, [])
    assert here.run() == 3


def test_403_at_the_start_is_one_line_and_exit_2(here: Project, place: str, faults: FaultProxy, capsys):
    rule = faults.add("403", "GET", "plan-0000", times=100)
    assert here.run() == 2
    assert "access denied (403): grant this account 'Storage Object User' on the bucket" in one_line(
        capsys.readouterr().err
    )
    assert rule.hits == 1


def test_403_in_the_middle_is_one_line_and_stops_at_once(job: Project, place: str, faults: FaultProxy, capfd):
    rule = Rule("403", nth_upload(4, 999), times=999)  # behind plan, job file and bucket record
    faults.rules.append(rule)
    assert job.run() == 1
    assert "access denied (403)" in one_line(capfd.readouterr().err)
    assert 1 <= rule.hits <= 3  # the records of one unit: nothing was tried again, not even by the supervisor
    faults.rules.clear()
    assert job.run() == 3


def without_login(folder: Path) -> dict[str, str]:
    """An environment without credentials, in which nothing answers as Google's metadata server."""
    nobody = f"127.0.0.1:{free_port()}"
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "FAKE_BARK_NOTES")}
    return kept | {"HOME": str(folder), "GCE_METADATA_HOST": nobody, "GCE_METADATA_IP": nobody}


@pytest.mark.parametrize("command", ["run", "status", "failed", "verify"])
def test_without_credentials_a_command_says_so_in_one_line(spawning: Project, tmp_path: Path, command: str):
    spawning.write(a_txt="One.\n")
    assert spawning.run(command="plan") == 0  # writes the job file
    output = "gs://some-bucket/out"
    arguments = [str(spawning.folder / "job.yaml"), "--output", output] if command == "run" else [output]
    full = [sys.executable, "-m", "pipeline.cli", command, *arguments]
    done = subprocess.run(full, env=without_login(tmp_path), capture_output=True, text=True, timeout=60)
    expected = "bark-beam: gs:// needs a Google login: run `gcloud auth application-default login`\n"
    assert (done.returncode, done.stderr) == (2, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("local", "said"),
    [("output", "cannot be listed (Cannot connect to host"), ("input", "did not answer (ConnectionError)")],
)
def test_a_dead_server_is_one_line_and_exit_2(job: Project, monkeypatch, capfd, local: str, said: str):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    job.write(a_txt="One.\n")
    started = time.monotonic()
    assert job.run(**{local: f"{job.folder}/in/*" if local == "input" else f"{job.folder}/out"}) == 2
    assert said in one_line(capfd.readouterr().err)
    assert time.monotonic() - started < 120


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_dies_under_a_job_is_one_line_and_the_job_resumes(
    job: Project, place: str, faults: FaultProxy, tmp_path: Path, capfd
):
    faults.rules.append(Rule("reset", nth_upload(5, 10**6), times=10**6))
    assert job.run() == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("bark-beam: the job ended with status 1 (gs://")
    assert "did not answer" in last
    assert last.endswith("3 times without any new unit: run again to resume")
    faults.rules.clear()
    assert job.run() == 3
    assert job.run("--output", str(tmp_path / "local")) == 3
    assert files_of(f"{place}/out") == files_of(str(tmp_path / "local"))
