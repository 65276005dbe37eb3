"""The report of a run: what it tells, and that nothing of the input becomes part of the page's code."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.jobfile import JOB_FILE
from pipeline.manifest import publish
from pipeline.outputs.metrics import Metrics, add_metrics
from pipeline.outputs.unit_files import Layout
from pipeline.plan import write_plan
from pipeline.report import REPORT, findings, write_report
from pipeline.report.findings import gather, spread
from pipeline.store import LocalStore
from tests.pipeline.small_run import FINGERPRINT, Finished, commit, failed, finished, plan, small_run


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An output whose run has a plan and nothing else."""
    made = LocalStore(tmp_path / "out")
    write_plan(made, plan(0, 2))
    return made


def page(store: LocalStore) -> str:
    write_report(store)
    return store.read(REPORT).decode()


def changed(record: Finished, *, level: float = 1.0, **columns) -> Finished:
    """The record with other columns in its rows, and its audio louder or quieter."""
    rows = tuple(replace(row, **columns) for row in record.rows)
    return Finished(rows, tuple((wave * level).astype(np.float32) for wave in record.waveforms))


@pytest.mark.parametrize("layout", [Layout(), Layout(where="parquet", audio_format="mp3")], ids=["files", "parquet"])
def test_a_finished_run(store, layout):
    small_run(store, layout)
    store.put(JOB_FILE, b"job: dataset\n")
    start = Metrics(started="2026-01-02T03:04:05+00:00", wall_s=2.5, finished=True, records=4, failed=1, audio_s=5.0)
    counters = {"coarse_busy_slot_steps": 90, "coarse_slot_steps": 100}
    add_metrics(store, replace(start, counters=counters, seconds={"coarse": 1.5, "fine": 0.5}, device="gpu x 2"))
    html = page(store)
    for told in (
        "out: finished", "<b>4</b>records done", "<b>1</b>records failed", "<b>2</b>times real time",
        "<td>2026-01-02 03:04:05</td>", "<td>gpu x 2</td>", "<td>coarse 90 %</td>", "<td>coarse 75 %, fine 25 %</td>",
        "<td>EmptyText</td><td>1</td><td>empty (in.txt:9): nothing to say</td>",
        "7 clips</p>", "seconds a clip: 0.5 to 0.5", "<td>en 7</td>", "<td>eos 7</td>", "<pre>job: dataset\n</pre>",
    ):  # fmt: skip
        assert told in html, told
    embedded = re.findall(r'src="data:audio/(?:flac|mpeg);base64,([^"]+)"', html)
    known = {sound.data for sound in gather(store).samples}
    assert {base64.b64decode(data) for data in embedded} == known
    if layout.where == "files":
        assert known == {store.read(entry.path) for entry in store.list("audio/")}


def test_a_run_that_goes_on_or_was_stopped(store):
    assert "not finished, 0 units are committed" in page(store)
    commit(store, made=[finished("a")])
    add_metrics(store, Metrics(started="2026-01-02T03:04:05+00:00", wall_s=2.5, finished=False))
    html = page(store)
    assert "not finished, 1 units are committed" in html
    assert "2026-01-02 03:04:05 (stopped)" in html


def test_nothing_of_the_input_becomes_code(store):
    evil = "<script>alert('&')</script>"
    commit(store, made=[changed(finished("x"), text=evil, record_id=evil, id=evil, voice=evil, audio_path=None)])
    commit(store, "0000/000001-00000", [], [replace(failed(evil), source=evil, message=evil, error=evil)])
    store.put(JOB_FILE, evil.encode())
    html = page(store)
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;") >= 6


def test_clips_that_measure_unlike_the_others_are_counted_and_heard(store):
    ordinary = [finished(f"n{number}", "Twelve chars") for number in range(20)]
    commit(store, made=ordinary)
    assert gather(store).marks == ()
    odd = [
        changed(finished("long", "Twelve chars"), stop_reason="cap"),
        changed(finished("silent", "Twelve chars"), level=1e-4),
        changed(finished("loud", "Twelve chars"), level=100.0),
        finished("fast", "This text has many more characters than the others have"),
        changed(finished("slow", "Twelve chars"), text="0123456789"),
    ]
    slow = Finished(odd[-1].rows, tuple(np.tile(wave, 3) for wave in odd[-1].waveforms))
    commit(store, "0000/000001-00000", [*odd[:-1], slow])
    marks = gather(store).marks
    assert [(mark.name.split(":")[0], mark.count) for mark in marks] == [
        ("ran into the token limit", 1),
        ("almost silent", 1),
        ("at full scale", 1),
        ("more than twice as fast as usual", 1),
        ("more than twice as slow as usual", 1),
    ]
    assert [mark.sounds[0].clip.row.record_id for mark in marks] == ["long", "silent", "loud", "fast", "slow"]
    assert "1 clip ran into the token limit: the end may be missing" in page(store)


def test_only_some_units_of_a_large_run_are_measured(store, monkeypatch):
    monkeypatch.setattr(findings, "MEASURED_UNITS", 2)
    for number in range(5):
        commit(store, f"0000/000000-{number:05d}", [finished(f"r{number}", "One.")], [failed(f"f{number}")])
    found = gather(store)
    assert [clip.row.record_id for clip in found.clips] == ["r0", "r4"]
    assert next(iter(found.failures.values())).count == 5
    assert "2 clips of 2 of 5 units, evenly spread" in page(store)


def test_large_audio_is_named_not_embedded(store, monkeypatch):
    monkeypatch.setattr(findings, "LARGEST_SOUND_BYTES", 100)
    commit(store, made=[finished("a")])
    html = page(store)
    assert "base64" not in html
    assert re.search(r"<td>audio/a-\w+-\w+\.flac \(too large for this page\)</td>", html)


def test_tokens_alone_have_nothing_to_hear(store):
    commit(store, made=[finished("a", audio=False)])
    html = page(store)
    assert "2 clips</p>" in html
    assert "Clips to hear" not in html
    assert "seconds a clip" not in html


def test_failed_records_of_an_earlier_generation_were_listed_anew(store):
    small_run(store)
    write_plan(store, plan(1, 2))
    commit(store, "0001/000000-00000", [], [failed("empty")])
    assert [kind.count for kind in gather(store).failures.values()] == [1]


def test_spread():
    assert spread(range(3), 8) == [0, 1, 2]
    assert spread(range(100), 3) == [0, 49, 99]
    assert spread([], 3) == []


def test_the_command(store, tmp_path, capsys):
    names = ["0000/000000-00000"]
    commit(store, names[0], [finished("a")])
    publish(store, generation=0, fingerprint=FINGERPRINT, commits=names, records=1)
    assert main(["report", f"{tmp_path / 'out'}/"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}/_run/report.html\n"
    assert store.size(REPORT)
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"bark-beam: {tmp_path} holds no run: check the path\n"
