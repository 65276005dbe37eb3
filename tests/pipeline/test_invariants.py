"""What holds for every input, unit size and number of workers: each id comes out once, and its result is its own."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bark_model.random_checkpoint import write_random
from pipeline.cli import main
from pipeline.manifest import load_manifest
from pipeline.verify import verify

from .conftest import ROOT, Project

TEXTS = st.sampled_from(
    [
        "Fine.",
        "Two sentences. Or more!",
        "POISON",
        "NOSPEECH",
        "NAN",
        "OOM2 here.",
        "...",
        "",
        "♪ la la ♪",
        "Ça va? 你好。",
    ]
) | st.text(max_size=80)
IDS = st.sampled_from(["a", "A", "../../x", "/abs", "\u00e9", "e\u0301", "s0.jsonl:1", "%2e%2e", "x\ny"]) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)
GOOD = st.fixed_dictionaries(
    {"id": IDS, "text": TEXTS},
    optional={"voice": st.sampled_from(["random_0", "nobody", "../x"]), "seed": st.integers(0, 9)},
)
BAD = st.sampled_from([b'{"id": "cut', b"null", b"[]", b"\xff\xfe", b'{"id": "\\ud800", "text": "x"}', b"{" * 2000])
SHARDS = st.lists(st.lists(GOOD | BAD, max_size=8), min_size=1, max_size=4).filter(any)
WORKERS = st.sampled_from([[], ["--direct_num_workers=3", "--direct_running_mode=multi_threading"]])
UNIT_AUDIO_S = st.floats(1, 30)

quick = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
thorough = settings(quick, max_examples=300)


def write_shards(project: Project, shards) -> set[str]:
    """Writes each list of rows as a JSONL shard; the ids that must come out: the row's, or the place of a bad line."""
    shutil.rmtree(project.folder / "in", ignore_errors=True)
    (project.folder / "in").mkdir()
    ids = set()
    for number, rows in enumerate(shards):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (project.folder / "in" / f"s{number}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        for line, row in enumerate(rows, 1):
            ids.add(f"s{number}.jsonl:{line}" if isinstance(row, bytes) else row["id"])
    return ids


def check_every_id(project: Project, shards, unit_audio_s: float, workers: list[str]) -> None:
    ids = write_shards(project, shards)
    shutil.rmtree(project.output, ignore_errors=True)
    code = project.run(*workers, unit_audio_s=unit_audio_s)
    done, failed = {row.record_id for row in project.rows().values()}, set(project.failed())
    assert done | failed == ids
    assert not done & failed
    assert code == (3 if failed else 0)
    manifest = load_manifest(project.store)
    assert (manifest.records, manifest.done, manifest.failed) == (len(ids), len(done), len(failed))
    assert verify(project.store).is_whole


@quick
@given(shards=SHARDS, unit_audio_s=UNIT_AUDIO_S, workers=WORKERS)
def test_ids_in_are_ids_done_and_ids_failed(project: Project, shards, unit_audio_s: float, workers: list[str]):
    check_every_id(project, shards, unit_audio_s, workers)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@thorough
@given(shards=SHARDS, unit_audio_s=UNIT_AUDIO_S, workers=WORKERS)
def test_ids_in_are_ids_done_and_ids_failed_in_very_many_runs(project, shards, unit_audio_s, workers):
    check_every_id(project, shards, unit_audio_s, workers)


CORPUS = [{"id": f"r{n}", "text": f"Record {n} says this. {'And a little more. ' * (n % 4)}"} for n in range(20)]


@settings(quick, max_examples=6)
@given(
    order=st.permutations(CORPUS),
    shards=st.integers(1, 6),
    unit_audio_s=UNIT_AUDIO_S,
    slots_of_workers=WORKERS,
)
def test_order_shards_units_and_workers_change_no_result(project, order, shards, unit_audio_s, slots_of_workers):
    for output, rows, parts, flags in (("one", CORPUS, 1, []), ("other", order, shards, slots_of_workers)):
        project.output = project.folder / output
        if output == "other" or not project.output.exists():
            shutil.rmtree(project.output, ignore_errors=True)
            write_shards(project, [rows[part::parts] for part in range(parts)])
            assert project.run(*flags, output=str(project.output), unit_audio_s=unit_audio_s) == 0
    other = project.results()
    project.output = project.folder / "one"
    assert project.results() == other
    assert len(other) >= len(CORPUS)


@pytest.fixture(scope="module")
def real_runs(tmp_path_factory) -> list[Project]:
    """The same 24 records by the tiny Bark itself: on one device in one shard, on four in other orders and units."""
    folder = tmp_path_factory.mktemp("real")
    checkpoint = str(write_random(folder / "checkpoint").folder)
    rows = [{"id": f"r{n}", "text": f"Record {n}{' and on' * (n % 3)}.", "seed": n % 2} for n in range(24)]
    rows[5]["voice"] = rows[6]["voice"] = "random_1"
    runs = []
    for devices, order, parts, unit_audio_s in ((1, rows, 1, 86400), (4, rows[::-1], 3, 15)):
        project = Project(folder / f"on-{devices}", checkpoint)
        project.folder.mkdir()
        write_shards(project, [order[part::parts] for part in range(parts)])
        job = project.folder / "job.yaml"
        values = {"unit_audio_s": unit_audio_s, "devices": {"slots": 4}}
        job.write_text(yaml.safe_dump(project.values | values))
        environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "pipeline.cli", "run", str(job)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode in (0, 3), done.stderr
        runs.append(project)
    return runs


def test_bark_itself_gives_the_same_tokens_and_pcm_on_one_device_and_on_four(real_runs):
    one, four = real_runs
    assert len(load_manifest(one.store).shards) < len(load_manifest(four.store).shards)
    assert (one.results(), one.failed()) == (four.results(), four.failed())
    assert len(one.results()) > 15
    assert len({row.audio_sha256 for row in one.rows().values()}) == len(one.results())


def test_outputs_of_bark_itself_verify(real_runs, capsys):
    for project in real_runs:
        assert main(["verify", str(project.output)]) == 0
    assert capsys.readouterr().out.count("whole: ") == 2
