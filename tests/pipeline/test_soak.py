"""Memory over a long run: 10,000 short records through one process, at the end as after the first thousand."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.manifest import load_manifest

from .conftest import Project

RECORDS = 10_000
SETTLED = 1_000
GROWTH = 1.05
SEEN_TO = 0.95
"""The process may end between two looks; by then this part of the units had to be committed."""


def peak_mb(pid: int) -> float:
    """The most memory that a process held so far (VmHWM), which never falls; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def worker_of(launcher: int) -> int:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return int(children[0]) if children else 0


def soak(project: Project) -> list[tuple[int, float]]:
    """(records committed, peak memory in MB) as units were committed, of the one process that works."""
    project.write(a_txt="".join(f"Short record {n}.\n" for n in range(RECORDS)))
    project.values |= {"unit_audio_s": 200, "devices": {"slots": 16}}
    assert project.run(command="plan") == 0  # writes the job file
    command = [sys.executable, "-m", "pipeline.cli", "run", str(project.folder / "job.yaml")]
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    seen, last = [], 0
    try:
        while launcher.poll() is None:
            time.sleep(0.2)
            committed = len(list(project.store.list("_run/commits/")))
            if committed > last and (peak := peak_mb(worker_of(launcher.pid))):
                seen.append((committed, peak))
                last = committed
    finally:
        launcher.kill()
        said = launcher.communicate()[1]
    assert launcher.returncode in (0, 3), said
    assert "starting it again" not in said
    manifest = load_manifest(project.store)
    assert (manifest.records, manifest.done + manifest.failed) == (RECORDS, RECORDS)
    mean = RECORDS / len(manifest.shards)  # of a unit: units are of nearly equal size
    return [(round(committed * mean), peak) for committed, peak in seen]


def check_growth(seen: list[tuple[int, float]], capsys, name: str) -> None:
    early = next(peak for records, peak in seen if records >= SETTLED)
    records, late = seen[-1]
    with capsys.disabled():
        print(f"\n{name}: {early:.0f} MB after {SETTLED} records, {late:.0f} MB after {records}", end=" ")
    assert records >= SEEN_TO * RECORDS, "the last look came too early to tell of the whole run"
    assert late <= GROWTH * early


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_records_of_a_run(spawning: Project, capsys):
    """Everything but the networks: the fake Bark makes its audio from digests."""
    check_growth(soak(spawning), capsys, "pipeline with a fake Bark")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_memory_does_not_grow_with_the_records_of_a_run_of_bark(spawning: Project, monkeypatch, capsys):
    """The tiny Bark itself, compiled and decoding."""
    monkeypatch.delenv("PYTHONPATH")
    check_growth(soak(spawning), capsys, "tiny Bark")
