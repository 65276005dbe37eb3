"""Two runs on one output at once, attempts that finish late, two attempts of one unit: nothing ever mixes."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import launch
from pipeline.cli import main
from pipeline.graph import model_handler
from pipeline.jobfile import load
from pipeline.launch import check
from pipeline.manifest import load_manifest
from pipeline.steps import CommitUnits, RequestUnits
from pipeline.store import Conflict
from pipeline.verify import verify

from . import fakes
from .conftest import Project

TEXTS = [{"id": f"r{n}", "text": f"This is record number {n}."} for n in range(8)]


def start(project: Project, *flags: str) -> subprocess.Popen:
    job = str(project.folder / "job.yaml")
    command = [sys.executable, "-m", "pipeline.cli", "run", job, *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(child: subprocess.Popen) -> tuple[int, str]:
    said = child.communicate(timeout=120)[1]
    return child.returncode, said


def undisturbed(project: Project, *flags: str) -> dict[str, bytes]:
    """The tree of the same job run alone, in this process."""
    project.output = project.folder / "alone"
    assert project.run(*flags, output=str(project.output)) == 0
    return project.tree()


@pytest.fixture
def job(project: Project) -> Project:
    """Eight records in as many units, its job file written."""
    project.write(a_jsonl=TEXTS)
    project.values["unit_audio_s"] = 1
    project.run(command="plan")
    return project


def test_two_equal_runs_at_once_converge(job: Project):
    endings = [end(child) for child in (start(job), start(job))]
    assert [code for code, _ in endings] == [0, 0], endings
    both = job.tree()
    assert verify(job.store).is_whole
    assert both == undisturbed(job)


def test_of_two_different_runs_at_once_one_is_refused(job: Project):
    endings = [end(child) for child in (start(job, "--seed", "0"), start(job, "--seed", "1"))]
    assert sorted(code for code, _ in endings) == [0, 2], endings
    [said] = [said for code, said in endings if code == 2]
    # A run that was refused after its checks has printed their notes (random weights) before the one line of its error.
    [refused] = [line for line in said.splitlines() if not line.startswith("note: ")]
    assert refused.startswith(f"bark-beam: {job.output}")
    assert "another configuration" in refused or "another run planned generation 0 meanwhile" in refused
    both, seed = job.tree(), [code for code, _ in endings].index(0)
    assert both == undisturbed(job, "--seed", str(seed))


def test_a_run_that_planned_at_the_same_moment_is_refused_and_writes_nothing(project: Project, capsys):
    project.write(a_jsonl=TEXTS[:2])
    assert project.run(command="plan") == 0
    path = str(project.folder / "job.yaml")
    first, second = (check(load(path, flags)[0]) for flags in ([], ["--seed", "1"]))
    assert launch.launch(first, []) == 0
    before = project.tree()
    with pytest.raises(launch.UsageError, match="another run planned generation 0 meanwhile: run again"):
        launch.launch(second, [])
    assert project.tree() == before


@pytest.mark.parametrize("second", ["grown", "forced"])
def test_a_run_that_a_newer_one_overtook_changes_nothing(project: Project, monkeypatch, capsys, second: str):
    """While the first run is under way, another grows the input or forces another seed, and finishes before it."""
    project.write(a_jsonl=TEXTS[:4])

    run_here = launch.supervise

    def overtaken(job, plan, beam_flags, total, **_):
        monkeypatch.setattr(launch, "supervise", run_here)
        if second == "grown":
            project.write(b_jsonl=TEXTS[4:])
        flags = ["--seed", "1", "--force"] if second == "forced" else []
        assert main(["run", str(project.folder / "job.yaml"), *flags]) == 0
        expected.append((project.results(), load_manifest(project.store)))
        run_here(job, plan, beam_flags, total)

    expected = []
    monkeypatch.setattr(launch, "supervise", overtaken)
    assert project.run() == 1
    assert "has a newer generation 1: this run's 0 is stale" in capsys.readouterr().err
    results, manifest = expected[0]
    assert (project.results(), load_manifest(project.store)) == (results, manifest)
    assert len(results) == (8 if second == "grown" else 4)
    assert verify(project.store).is_whole


def test_a_run_frozen_while_another_finishes_changes_nothing_when_it_wakes(job: Project):
    job.write(a_jsonl=[row | {"text": row["text"] + " SLOW"} for row in TEXTS])
    zombie = start(job)
    while not list(job.store.list("_run/commits/")):
        assert zombie.poll() is None
        time.sleep(0.05)
    frozen = [zombie.pid, *children_of(zombie.pid)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    assert len(list(job.store.list("_run/commits/"))) < 8
    try:
        assert end(start(job))[0] == 0
        finished = job.tree()
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert end(zombie)[0] == 0
    assert job.tree() == finished
    assert finished == undisturbed(job)


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def attempts(project: Project, monkeypatch, tmp_path) -> list:
    """A finished run, and what each unit's attempt was about to commit: (job, plan, outcomes)."""
    seen, work = [], CommitUnits.work

    def watched(self, element):
        seen.append((self._job, self._plan, element))
        return work(self, element)

    monkeypatch.setattr(CommitUnits, "work", watched)
    project.write(a_jsonl=TEXTS[:3])
    assert project.run(unit_audio_s=3) == 0
    monkeypatch.undo()
    assert len(seen) > 1
    return seen


def commit_again(job, plan, element) -> list[str]:
    step = CommitUnits(job, plan)
    step.setup()
    return list(step.outputs(step.work(element)))


def test_a_zombie_attempt_of_a_unit_finishing_late_changes_nothing(project: Project, attempts):
    before = project.tree()
    for attempt in attempts:
        assert len(commit_again(*attempt)) == 1
    assert project.tree() == before


def test_a_zombie_with_another_result_is_refused_and_nothing_of_it_counts(project: Project, attempts):
    before, results = project.tree(), project.results()
    job, plan, element = attempts[0]
    odd = pickle.loads(pickle.dumps(element))
    for outcome in odd.outcomes:
        outcome.made.audio[:] *= 0.5
    with pytest.raises(Conflict, match="already holds other content: it is kept"):
        commit_again(job, plan, odd)
    after = project.tree()
    assert {name: after[name] for name in before} == before
    assert project.results() == results
    report = verify(project.store)
    assert (report.is_whole, set(report.strays)) == (True, set(after) - set(before))
    assert report.strays


def attempt_unit(given: bytes) -> str:
    """One attempt at a unit from its request to its commit, in a process of its own."""
    sys.modules["bark_model.bark"] = fakes
    job, plan, unit = pickle.loads(given)
    request, commit = RequestUnits(job, plan), CommitUnits(job, plan)
    request.setup(), commit.setup()
    handler = model_handler(job, plan)
    model = handler.load_model()
    for requested in request.outputs(request.work(unit)):
        for outcomes in handler.run_inference(requested, model):
            return next(iter(commit.outputs(commit.work(outcomes))))
    return "there already"


def test_two_attempts_of_one_unit_in_two_processes_converge(project: Project, attempts):
    """From the request to the commit record, which the first run's manifest and bucket records still wait for."""
    whole, made = project.tree(), {name for name in project.tree() if name.split("/")[0] in ("audio", "tokens")}
    commits = {name for name in whole if name.startswith("_run/commits/")}
    for name in made | commits:
        (project.output / name).unlink()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for job, plan, element in attempts:
            said = pool.map(attempt_unit, [pickle.dumps((job, plan, element.unit))] * 2, chunksize=1)
            assert f"{element.unit.name} {len(element.unit.ready)} done 0 failed" in said
        pool.close()
        pool.join()
    assert project.tree() == whole
