"""Jobs on Prism, Beam's portable engine: with workers in this process, and with a worker pool as clusters have it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apache_beam
import pytest

from pipeline.jobfile import JOB_FILE
from pipeline.outputs.metrics import read_metrics
from pipeline.status import read_status
from tests.lanes import free_port, go_tool

from .conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LINES = [{"id": f"r{n}", "text": f"This is record number {n}."} for n in range(6)]


@pytest.fixture(scope="module")
def prism() -> Path:
    return go_tool("Prism", "github.com/apache/beam/sdks/v2/go/cmd/prism", f"v{apache_beam.__version__}")


@contextlib.contextmanager
def running(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def cluster(prism: Path, spawning: Project, monkeypatch) -> Iterator[dict[str, str]]:
    """The keys of a job that runs on a Prism server, in worker processes that a pool starts with plain `python`."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    jobs, pool = free_port(), free_port()
    worker_pool = "apache_beam.runners.worker.worker_pool_main"
    with (
        running(str(prism), "--job_port", str(jobs), "--serve_http=false"),
        running(sys.executable, "-m", worker_pool, "--service_port", str(pool)),
    ):
        yield {
            "runner": "portable",
            "job_endpoint": f"localhost:{jobs}",
            "environment_type": "EXTERNAL",
            "environment_config": f"localhost:{pool}",
        }


def made(project: Project) -> dict[str, bytes]:
    """The output but for the stored job, which names the runner."""
    return {path: content for path, content in project.tree().items() if path != JOB_FILE}


def made_locally(project: Project) -> dict[str, bytes]:
    """The same of an undisturbed run on the local runner, elsewhere."""
    output, project.output = project.output, project.folder / "local"
    assert project.run(output=str(project.output)) == 0
    files, project.output = made(project), output
    return files


def test_prism_makes_the_bytes_of_the_local_runner(prism, spawning):
    spawning.write(a_jsonl=LINES[:3], b_jsonl=LINES[3:])
    assert spawning.run(runner="prism", prism_location=str(prism)) == 0
    assert made(spawning) == made_locally(spawning)


def test_a_pool_of_workers_makes_the_bytes_of_the_local_runner(cluster, spawning):
    spawning.write(a_jsonl=LINES[:3], b_jsonl=LINES[3:])
    assert spawning.run(**cluster) == 0
    workers = {int(line.split()[0]) for line in spawning.notes.read_text().splitlines()}
    assert workers
    assert os.getpid() not in workers
    [start] = read_metrics(spawning.store)
    assert (start.runner, start.records, start.failed, start.chunks, start.finished) == ("portable", 6, 0, 6, True)
    assert start.audio_s == pytest.approx(read_status(spawning.store).audio_s, abs=0.01)
    assert start.counters["coarse_slot_steps"] >= start.counters["coarse_busy_slot_steps"] > 0
    assert made(spawning) == made_locally(spawning)


def test_a_killed_worker_of_a_pool_costs_the_run_but_no_unit_that_was_committed(cluster, spawning, capfd):
    spawning.values["unit_audio_s"] = 1
    spawning.write(a_jsonl=[row | {"text": row["text"] + " KILL"} if row["id"] == "r3" else row for row in LINES])
    assert spawning.run(**cluster) == 1
    assert "bark-beam: unexpected RuntimeError: Pipeline" in capfd.readouterr().err
    assert spawning.run(**cluster) == 0
    assert len(set(spawning.synthesised())) == len(LINES)
    assert made(spawning) == made_locally(spawning)
