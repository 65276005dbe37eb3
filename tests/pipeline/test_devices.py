"""What the devices were used for: warmed up first, counted unit by unit, told at the end, and in no result."""

import json
import os
import subprocess
import sys

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.ml.inference.base import RunInference

from bark_model.engine_stats import Usage
from bark_model.outcomes import Request
from pipeline.counters import counted
from pipeline.devices import add, since
from pipeline.outputs.metrics import read_metrics
from pipeline.synthesize import BarkModelHandler

from .conftest import ROOT

STAGES = ["semantic", "coarse", "fine", "audio"]


def test_sums_and_differences_of_usage():
    first = {"coarse": Usage(1, 2, 4), "semantic": Usage(1, 1, 2), "fine": Usage()}
    both = add([first, {"coarse": Usage(2, 2, 4)}])
    assert list(both.items()) == [("semantic", Usage(1, 1, 2)), ("coarse", Usage(3, 4, 8)), ("fine", Usage())]
    assert since(both, first) == {"coarse": Usage(2, 2, 4)}
    assert since(first, {}) == {"coarse": Usage(1, 2, 4), "semantic": Usage(1, 1, 2)}


@pytest.mark.parametrize(
    ("start", "to", "due"),
    [("text", "audio", STAGES), ("text", "coarse", STAGES[:2]), ("fine", "audio", STAGES[3:]), ("audio", "fine", [])],
)
def test_the_stages_of_a_job_are_warmed_up_and_no_others(project, checkpoint, start, to, due):
    BarkModelHandler(checkpoint, slots=8, start=start, to=to).load_model()
    assert [line.split() for line in project.noted("warm_up")] == [["8", *due]]


def test_where_warming_up_exhausts_memory_fewer_slots_are_warmed_up(project, checkpoint, monkeypatch):
    monkeypatch.setenv("FAKE_BARK_WARM_UP", "OOM2")
    BarkModelHandler(checkpoint, slots=8).load_model()
    assert [line.split()[0] for line in project.noted("warm_up")] == ["2"]
    for fault, message in [("OOM0", "RESOURCE_EXHAUSTED: out of memory at 1 slots"), ("POISON", "the poison was")]:
        monkeypatch.setenv("FAKE_BARK_WARM_UP", fault)
        with pytest.raises(RuntimeError, match=message):
            BarkModelHandler(checkpoint, slots=8).load_model()


def test_each_batch_adds_what_it_used_to_the_counters_of_a_pipeline(project, checkpoint):
    """Whatever the number of batches and slot shapes: OOM2 runs its whole batch on two slots."""
    texts = ["One.", "Three.", "OOM2 here.", "Twelve more."]
    handler = BarkModelHandler(checkpoint, slots=4, to="coarse", min_batch_size=2, max_batch_size=2)
    pipeline = beam.Pipeline(runner="FnApiRunner")
    _ = pipeline | beam.Create([Request(id=text, text=text) for text in texts]) | RunInference(handler)
    result = pipeline.run()
    result.wait_until_finish()
    counters = counted(result)
    assert counters["semantic_busy_slot_steps"] == sum(map(len, texts))
    assert counters["semantic_slot_steps"] == 4 * len("Three.") + 2 * len("Twelve more.")
    assert counters["coarse_device_ms"] == len("Three.") + len("Twelve more.")
    assert "fine_slot_steps" not in counters


def test_a_run_tells_what_was_compiled_how_busy_the_slots_were_and_where_the_time_went(spawning, capfd):
    spawning.write(a_txt="One.\nThree.\n")
    assert spawning.run(devices={"slots": 2}) == 0
    shown = capfd.readouterr()
    assert shown.err.count("warmed up 4 programs in 6 s, the longest in 2 s: semantic step [2]\n") == 1
    quarters = ", ".join(f"{stage} 25 %" for stage in STAGES)
    busy = ", ".join(f"{stage} 83 %" for stage in STAGES)
    assert shown.out.splitlines()[-1] == f"slots busy: {busy}; 0 s of device time: {quarters}"
    [start] = read_metrics(spawning.store)
    assert start.compiled == {f"{stage} step [2]": 1.5 for stage in STAGES}
    assert (start.counters["coarse_slot_steps"], start.counters["coarse_busy_slot_steps"]) == (12, 10)
    assert start.device == "fake x 2"
    assert start.seconds == dict.fromkeys(STAGES, 0.006)
    assert 0 < start.start_up_s < start.wall_s
    assert spawning.run(devices={"slots": 2}) == 0  # nothing left to do: no worker starts
    again = capfd.readouterr()
    assert "warmed up" not in again.err
    assert "slots busy" not in again.out


def test_what_users_should_know_of_a_machine_is_told_once(spawning, capfd, monkeypatch):
    monkeypatch.setenv("FAKE_BARK_NOTE", "no compiler on this machine")
    spawning.write(a_txt="One.\n")
    assert spawning.run() == 0
    assert capfd.readouterr().err.count("note: no compiler on this machine\n") == 1


def test_debug_lists_every_program(spawning, capfd):
    spawning.write(a_txt="One.\n")
    assert spawning.run("--debug", devices={"slots": 2}) == 0
    assert "\n  fine step [2] 1.50 s\n" in capfd.readouterr().err


def test_low_memory_reaches_the_model_and_changes_no_result(project):
    project.write(a_txt="One.\n")
    assert project.run(devices={"low_memory": True}) == 0
    assert project.noted("load") == ["low_memory"]
    before = project.results()
    assert project.run() == 0  # the same output, without it: resumed, not refused
    assert project.results() == before


def test_recordings_need_no_program_before_they_come(project):
    (project.folder / "wavs").mkdir()
    soundfile.write(project.folder / "wavs" / "a.wav", np.zeros(4800, np.float32) + 0.1, 24000)
    values = {"input": f"{project.folder}/wavs/*", "job": "reprocess", "stages": {"from": "audio", "to": "fine"}}
    assert project.run(**values) == 0
    assert project.noted("warm_up") == ["16"]


COUNT_COMPILATIONS = """
import json, sys
import jax
from pipeline import launch, synthesize
from pipeline.cli import main
from pipeline.graph import run_graph

events, when_warm = [], []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
launch.supervise = lambda job, plan, flags, total, **_: run_graph(job, plan, flags)
load_model = synthesize.BarkModelHandler.load_model

def loaded(self):
    model = load_model(self)
    when_warm.append(len(events))
    return model

synthesize.BarkModelHandler.load_model = loaded
status = main(["run", *sys.argv[1:]])
count = lambda name, seen: sum(event.endswith(name) for event in seen)
print(json.dumps({
    "status": status,
    "compiled": count("/cache_misses", events),
    "found": count("/cache_hits", events),
    "after_warm_up": count("/cache_misses", events[when_warm[0]:]),
}))
"""


@pytest.mark.slow
def test_a_second_start_of_a_run_compiles_nothing(spawning, monkeypatch, tmp_path):
    """The command itself with the tiny Bark, in one process so that jax can be watched."""
    monkeypatch.delenv("PYTHONPATH")
    spawning.write(a_txt="One.\nTwo of them.\n")
    spawning.values["devices"] = {"slots": 2, "compilation_cache": str(tmp_path / "compiled")}
    spawning.run(command="plan")  # writes the job file

    def start(output: str) -> dict:
        arguments = [str(spawning.folder / "job.yaml"), "--output", str(tmp_path / output)]
        command = [sys.executable, "-c", COUNT_COMPILATIONS, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    first, second = start("first"), start("second")
    assert (first["status"], second["status"]) == (0, 0)
    assert first["compiled"] > 5
    assert first["after_warm_up"] == 0
    assert (second["compiled"], second["found"]) == (0, first["compiled"])
