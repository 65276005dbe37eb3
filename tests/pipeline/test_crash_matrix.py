"""A whole job is killed with SIGKILL at every store operation in turn and started again: the same bytes, every time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import ROOT, TIMINGS
from .killing import HOOK, tree

PROCESSES = 2


@pytest.fixture
def root(tmp_path: Path, checkpoint: str) -> Path:
    """A folder with a job of two units: two records that are done and one whose line is bad."""
    lines = [json.dumps({"id": f"r{n}", "text": f"Record {n}."}) for n in range(2)] + ['{"id": "bad"']
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(lines) + "\n")
    values = {"input": f"{tmp_path}/in/*", "output": f"{tmp_path}/out", "checkpoint": checkpoint}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values | {"max_failed": "100%", "unit_audio_s": 1}))
    return tmp_path


def forked(root: Path, *numbers: int) -> subprocess.Popen:
    arguments = [str(root / "job.yaml"), str(root), *map(str, numbers)]
    environment = os.environ | {"PYTHONPATH": f"{HOOK}:{ROOT}", "KILL_AT": f"0:{root / 'counter'}"}
    command = [sys.executable, "-m", "tests.pipeline.forked_jobs", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def endings(child: subprocess.Popen) -> dict[int, list[int]]:
    """How each run of a process of forked_jobs ended, by kill point."""
    shown = child.communicate()[0]
    assert child.returncode == 0, shown
    lines = [line.split()[1:] for line in shown.splitlines() if line.startswith("ended ")]
    return {int(number): [int(status) for status in statuses] for number, *statuses in lines}


def whole_run(root: Path) -> tuple[dict[str, bytes], int]:
    """The tree of an undisturbed run, and how many store operations it made."""
    counter = root / "counter-0"
    counter.unlink(missing_ok=True)
    assert endings(forked(root)) == {0: [3]}
    return output_tree(root / "whole"), counter.stat().st_size


def output_tree(folder: Path) -> dict[str, bytes]:
    return tree(folder, ignored=lambda name: name in TIMINGS)


def check_matrix(root: Path, whole: dict[str, bytes], operations: int) -> None:
    """Every operation up to `operations` as the place of the kill."""
    children = [forked(root, first, operations, PROCESSES) for first in range(1, PROCESSES + 1)]
    ended = {number: statuses for child in children for number, statuses in endings(child).items()}
    assert ended == {number: [-9, 3] for number in range(1, operations + 1)}
    for number in range(1, operations + 1):
        assert output_tree(root / f"killed-{number}") == whole, f"killed before operation {number}"


def test_killed_at_every_store_operation_and_started_again_the_output_is_the_same(root: Path, capsys):
    whole, operations = whole_run(root)
    assert sum(name.startswith("_run/commits/") for name in whole) == 2
    assert operations > 60
    check_matrix(root, whole, operations)
    with capsys.disabled():
        print(f" [{operations} kill points of a whole job]", end="")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("second", "audio"),
    [
        ("grown", {"where": "files"}),
        ("changed", {"where": "files"}),
        ("changed", {"where": "parquet"}),
        ("first", {"format": "opus"}),
    ],
)
def test_every_kill_point_of_other_jobs(root: Path, capsys, second: str, audio: dict):
    """A later generation that adds a shard, or redoes one record and carries its unit mate; Opus by its bytes, too."""
    values = yaml.safe_load((root / "job.yaml").read_text()) | {"audio": audio, "unit_audio_s": 60}
    (root / "job.yaml").write_text(yaml.safe_dump(values))
    if second != "first":
        whole_run(root)
        (root / "whole").rename(root / "before")
    if second == "grown":
        (root / "in" / "b.txt").write_text("One more.\n")
    if second == "changed":
        shard = root / "in" / "a.jsonl"
        shard.write_text(shard.read_text().replace("Record 1.", "Another text."))
    whole, operations = whole_run(root)
    check_matrix(root, whole, operations)
    with capsys.disabled():
        print(f" [{operations} kill points]", end="")


def killed_command(root: Path, at: int, output: Path) -> tuple[list[int], str]:
    """Exit statuses of `bark-beam run` killed at an operation of any of its processes, and of the run after it, and
    what they said."""
    site = Path(__file__).parent / "fake_site"
    environment = os.environ | {"PYTHONPATH": f"{site}:{ROOT}"}
    command = [sys.executable, "-m", "pipeline.cli", "run", str(root / "job.yaml"), "--output", str(output)]
    statuses, said = [], ""
    for name, number in (("first", at), ("second", 0)):
        environment["KILL_AT"] = f"{number}:{root / f'cli-{at}-{name}'}"
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        statuses.append(done.returncode)
        said += done.stderr
    return statuses, said


def check_command(root: Path, whole: dict[str, bytes], at: int) -> str:
    """The output is whole after a kill: of the launcher, which a second start completes, or of a child, which the
    supervisor starts again. Tells which."""
    output = root / f"cli-{at}"
    (first, second), said = killed_command(root, at, output)
    assert (first in (-9, 3), second) == (True, 3), said
    assert output_tree(output) == whole
    assert (first == 3) == ("the job was killed by SIGKILL: starting it again" in said)
    return "child" if first == 3 else "launcher"


def test_a_kill_of_the_launcher_and_one_of_its_child_through_the_command(root: Path):
    whole, operations = whole_run(root)
    assert check_command(root, whole, operations // 3) == "child"
    assert check_command(root, whole, operations - 2) == "launcher"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_kill_point_through_the_command(root: Path, capsys):
    """All processes of a run as a user starts it: launcher, child, supervisor and all."""
    whole, _ = whole_run(root)
    killed_command(root, 0, root / "counted")
    operations = (root / "cli-0-first").stat().st_size
    killed = [check_command(root, whole, at) for at in range(1, operations + 1)]
    assert {"launcher", "child"} == set(killed)
    with capsys.disabled():
        print(f" [{operations} kill points, {killed.count('child')} of them in the child]", end="")
