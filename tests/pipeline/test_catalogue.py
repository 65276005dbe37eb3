"""Rows of the catalogue of faults that only a whole job can meet; docs/reliability.md maps every row to its tests."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from bark_model.random_checkpoint import write_random
from bark_model.voices import voice_npz
from pipeline.cli import main
from pipeline.job import Job
from pipeline.prepare import Preparer
from pipeline.report import REPORT
from pipeline.verify import verify

from . import fakes
from .conftest import Project

ODD_IDS = [
    "../../x",
    "/abs",
    "",
    "a\nb",
    "\u00e9",
    "e\u0301",
    "A",
    "a",
    "%2e%2e",
    "con",
    "." * 3,
    "i" * 300,
    "👩‍🚀",
    "x\\..\\y",
]


def start(
    project: Project, *flags: str, first: str = "", cwd: Path | None = None, **surroundings: str
) -> subprocess.Popen:
    """`bark-beam run` on the project's job file in a process of its own, which does `first` before all else."""
    code = f"{first}\nimport sys\nfrom pipeline.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", str(project.folder / "job.yaml"), *flags]
    environment = os.environ | surroundings
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment
    )


def test_row_6_odd_ids_come_back_exactly_and_name_no_file_outside(project: Project):
    project.write(a_jsonl=[{"id": record_id, "text": f"Record {n}."} for n, record_id in enumerate(ODD_IDS)])
    outside = {path for path in project.folder.parent.rglob("*") if project.output not in path.parents}
    assert project.run() == 0
    rows = project.rows().values()
    assert sorted(row.record_id for row in rows) == sorted(ODD_IDS)
    assert len({str(row.audio_path).casefold() for row in rows}) == len(ODD_IDS)
    assert verify(project.store).is_whole
    made = {path for path in project.folder.parent.rglob("*") if project.output not in path.parents} - outside
    assert made <= {project.output, project.folder / "job.yaml", project.notes}


@pytest.mark.parametrize("voice", ["../x", "https://example.org/v.npz", "/etc/passwd", "no/such.npz"])
def test_row_7_a_jobs_voice_that_is_none_fails_in_plan(project: Project, capsys, voice: str):
    project.write(a_txt="One.\n")
    assert project.run(command="plan", voice=voice) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("bark-beam: ")
    assert voice in said
    assert not project.output.exists()


@pytest.mark.parametrize("kind", ["audio", "tokens", "_run/commits"])
def test_row_13_a_damaged_file_is_named_and_made_again(project: Project, capsys, kind: str):
    """As the message says: without the file and its unit's commit record, another start makes both anew."""
    project.write(a_txt="One.\nTwo.\n")
    assert project.run() == 0
    whole = project.tree()
    name = next(name for name in whole if name.startswith(kind))
    path = project.output / name
    path.write_bytes(whole[name][:-20] + b"\0" * 20)
    assert main(["verify", str(project.output)]) == 1
    assert name in capsys.readouterr().out
    path.unlink()
    for commit in (project.output / "_run" / "commits").rglob("*.json"):
        commit.unlink()
    assert project.run() == 0
    assert project.tree() == whole
    assert main(["verify", str(project.output)]) == 0


def test_row_15_weights_that_are_not_here_are_one_line_with_the_command(
    project: Project, capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    project.write(a_txt="One.\n")
    for command in ("plan", "run"):
        assert project.run(command=command, checkpoint="suno/bark-small") == 2
        [said] = capsys.readouterr().err.splitlines()
        assert said.startswith("bark-beam: checkpoint 'suno/bark-small' is not in the local cache: run `bark-beam ")
    assert not project.output.exists()


def test_row_20_a_call_that_hangs_costs_its_record(project: Project, monkeypatch):
    misbehave = fakes.misbehave

    def hang(text: str, slots: int) -> None:
        if "HANG" in text:
            time.sleep(3)
        misbehave(text, slots)

    monkeypatch.setattr(fakes, "misbehave", hang)
    project.write(a_jsonl=[{"id": "good", "text": "Fine."}, {"id": "bad", "text": "HANG"}])
    assert project.run(devices={"timeout_s": 1}, unit_audio_s=60) == 3
    assert project.failed() == {"bad": "TimedOut"}
    assert list(project.rows()) == ["good/0"]


def test_row_23_a_full_disk_stops_the_job_in_one_line_and_it_resumes(project: Project):
    """Files may have 60 kB: enough for the short records' audio, too little for the long one's."""
    project.write(a_jsonl=[*({"id": f"r{n}", "text": f"Short {n}."} for n in range(3)), {"id": "long", "text": LONG}])
    project.values |= {"unit_audio_s": 1, "audio": {"format": "wav"}}
    assert project.run(command="plan") == 0  # writes the job file
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))"
    child = start(project, first=limit)
    said = child.communicate(timeout=120)[1]
    errors = [line for line in said.splitlines() if line.startswith("bark-beam: ")]
    assert child.returncode == 1, said
    assert len(errors) == 1
    assert "does not fit on the disk: free some space and run again; it resumes" in errors[0]
    assert "Traceback" not in said
    assert not (project.output / "_MANIFEST.json").exists()
    project.synthesised()
    assert project.run() == 0
    assert {one.split("/")[0] for one in project.synthesised()} >= {"long"}
    assert verify(project.store).is_whole


LONG = "This sentence is one of very many that make a long record. " * 40


def test_row_27_the_surroundings_change_nothing(project: Project, tmp_path: Path):
    project.write(
        a_jsonl=[{"id": "İx", "text": "Ça coûte 1,5 €."}, {"id": "b", "text": "Two. " * 30}], b_txt="Three.\n"
    )
    assert project.run() == 0
    expected = project.tree()
    elsewhere, shared_memory = tmp_path / "elsewhere", Path("/dev/shm")
    elsewhere.mkdir()
    environment = {"TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "7", "PYTHONUTF8": "0"}
    environment["TMPDIR"] = str(shared_memory if shared_memory.is_dir() else elsewhere)
    project.output = tmp_path / "other"
    child = start(project, "--output", str(project.output), cwd=elsewhere, **environment)
    said = child.communicate(timeout=120)[1]
    assert child.returncode == 0, said
    assert project.tree() == expected
    assert list(elsewhere.iterdir()) == []


def test_row_27_relative_paths_of_a_run_are_not_those_of_a_later_working_directory(
    project: Project, checkpoint: str, tmp_path: Path, monkeypatch, capsys
):
    """Elsewhere, the same relative names belong to another checkpoint and another voice."""
    project.write(a_jsonl=[{"id": "good", "text": "Fine."}, {"id": "bad", "text": "POISON"}])
    shutil.copytree(checkpoint, tmp_path / "model")
    elsewhere = tmp_path / "elsewhere"
    write_random(elsewhere / "model", seed=1)
    preset = Preparer(Job(input=("a",), output="b", checkpoint=checkpoint, voice="random_0")).job_voice()
    (tmp_path / "v.npz").write_bytes(voice_npz(preset))
    monkeypatch.chdir(tmp_path)
    assert project.run(input="in/*", checkpoint="model", voice="v.npz", devices={"compilation_cache": "cache"}) == 3
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(fakes, "misbehave", lambda text, slots: None)
    assert main(["failed", str(project.output), "--retry"]) == 0
    assert {(row.model, row.voice) for row in project.rows().values()} == {
        (str(tmp_path / "model"), str(tmp_path / "v.npz"))
    }
    stored = yaml.safe_load(project.store.read("_run/job.yaml"))
    assert stored["input"] == [f"{tmp_path}/in/*"]
    assert stored["devices"]["compilation_cache"] == f"{tmp_path}/cache"


def test_row_28_secrets_and_long_texts_stay_out_of_the_output(project: Project, monkeypatch, capfd):
    secret = "hunter22"

    def leak(text: str, slots: int) -> None:
        if "POISON" in text:
            raise RuntimeError(f"GET https://example.org/?token={secret} failed for {text * 1000}")

    monkeypatch.setattr(fakes, "misbehave", leak)
    project.write(a_jsonl=[{"id": "good", "text": "Fine."}, {"id": "bad", "text": "POISON"}])
    assert project.run("--s3_secret_access_key", secret) == 3
    assert main(["failed", str(project.output)]) == 0
    said = capfd.readouterr()
    for name, data in (project.tree() | {REPORT: project.store.read(REPORT)}).items():
        assert secret.encode() not in data, name
        assert b"POISONPOISONPOISON" * 10 not in data, name
    assert secret not in said.out
    assert "RuntimeError" in said.out
