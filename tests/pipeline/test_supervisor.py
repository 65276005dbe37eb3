"""Runs in child interpreters: killed and started again, given up, stopped early, in two processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline.outputs.metrics import read_metrics
from pipeline.supervisor import ATTEMPTS

TEXTS = [{"id": f"r{n}", "text": f"This is record number {n}."} for n in range(8)]


def test_a_killed_job_is_started_again_and_ends_as_if_undisturbed(spawning, capfd):
    spawning.values["unit_audio_s"] = 1
    spawning.write(a_jsonl=[row | {"text": row["text"] + " KILL"} if row["id"] == "r3" else row for row in TEXTS])
    assert spawning.run() == 0
    assert "the job was killed by SIGKILL: starting it again for what is missing" in capfd.readouterr().err
    killed = spawning.tree()
    assert len(spawning.noted("load")) == 2
    calls = spawning.synthesised()
    assert len(set(calls)) == 8
    assert len(calls) <= 9  # of what was done before the kill, only the unit whose commit was under way may come again
    [start] = read_metrics(spawning.store)
    assert (start.finished, start.failed, start.chunks) == (True, 0, start.records)
    assert start.records in (7, 8)  # 7 where the kill fell between that commit and its report
    assert 0 < start.units_skipped < 8
    spawning.output = spawning.folder / "undisturbed"
    assert spawning.run(output=str(spawning.output)) == 0
    assert spawning.tree() == killed


def test_two_worker_processes_elsewhere_in_the_world_give_the_same_bytes(spawning, monkeypatch, tmp_path_factory):
    spawning.write(a_jsonl=TEXTS[:4], b_jsonl=TEXTS[4:])
    assert spawning.run() == 0
    alone = spawning.tree()
    spawning.notes.write_text("")
    spawning.output = spawning.folder / "two"
    away = tmp_path_factory.mktemp("away")
    places = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8", "TMPDIR": str(away)}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(away)
    flags = ["--direct_num_workers", "2", "--direct_running_mode=multi_processing"]
    assert spawning.run(*flags, output=str(spawning.output)) == 0
    assert spawning.tree() == alone
    processes = {line.split()[0] for line in spawning.notes.read_text().splitlines()}
    assert len(processes) == 2


def test_a_killed_worker_process_is_survived(spawning):
    spawning.write(a_jsonl=[*TEXTS, {"id": "k", "text": "KILL"}])
    flags = ["--direct_num_workers", "2", "--direct_running_mode=multi_processing"]
    assert spawning.run(*flags) == 0
    assert len(spawning.rows()) == 9


def test_a_job_that_always_dies_is_given_up_with_its_reason(spawning, capfd, monkeypatch):
    spawning.write(a_jsonl=TEXTS)
    monkeypatch.setenv("FAKE_BARK_LOAD_ERROR", "the device is on fire")
    assert spawning.run() == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("bark-beam: the job ended with status 1 (RuntimeError: the device is on fire")
    assert last.endswith(f"{ATTEMPTS} times without any new unit: run again to resume")
    monkeypatch.delenv("FAKE_BARK_LOAD_ERROR")
    assert spawning.run() == 0


def test_too_many_failures_stop_the_job_before_its_end(spawning, capfd):
    bad = [{"id": f"bad{n}", "text": "NOSPEECH"} for n in range(4)]
    spawning.write(a_jsonl=[*bad, *({"id": f"slow{n}", "text": "SLOW one."} for n in range(40))])
    assert spawning.run(max_failed="0", unit_audio_s=1) == 1
    assert "of 44 records failed, max_failed is 0: the work done is kept" in capfd.readouterr().err
    assert 0 < len(list(spawning.store.list("_run/commits/"))) < 40


def test_an_error_of_a_worker_is_one_line_and_is_not_tried_again(spawning, capfd):
    spawning.write(a_txt="One.\n")
    (spawning.folder / "in" / "b.txt.gz").write_bytes(b"no gzip at all")
    assert spawning.run() == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("bark-beam:")]
    assert "b.txt.gz" in line
    assert spawning.noted("load") == []


def test_ctrl_c_ends_the_job_and_a_later_run_resumes(spawning):
    spawning.write(a_jsonl=[{"id": f"slow{n}", "text": "SLOW one."} for n in range(20)])
    spawning.values["unit_audio_s"] = 1
    spawning.run(command="plan")  # writes the job file
    job = str(spawning.folder / "job.yaml")
    # A shell's background job, as CI may be, starts its children deaf to SIGINT; a terminal does not.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, "run", job], stderr=subprocess.PIPE, text=True)
    while not list(spawning.store.list("_run/commits/")):
        time.sleep(0.05)
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    assert child.stderr is not None
    assert "bark-beam: stopped: what was committed is kept, run again to resume" in child.communicate(timeout=30)[1]
    assert child.returncode == 1
    [worker] = {int(line.split()[0]) for line in spawning.notes.read_text().splitlines()}
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    done = len(spawning.synthesised())
    assert spawning.run() == 0
    assert len(spawning.synthesised()) <= 20 - done + 2  # one was being synthesised, the one before it committed
