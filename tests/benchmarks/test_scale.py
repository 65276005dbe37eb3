"""The scale benchmark: what it counts as Beam's own time, and that its tables come out."""

import sys

import pytest

from benchmarks.scale import Bench, Spans, beam_table, devices_table, scale_table, spoken


def test_time_on_two_threads_at_once_counts_once():
    assert Spans([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]).covered_s == 4
    assert Spans([]).covered_s == 0


def test_a_stream_is_timed_item_by_item():
    spans = Spans([])
    assert list(spans.timed_items(lambda n: iter(range(1, n)))(4)) == [1, 2, 3]
    assert len(spans.spans) == 4


def test_beam_alone_is_less_than_the_whole(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bark_model.bark", None)  # put back afterwards
    lines = beam_table(Bench(tmp_path), [20], [100]).splitlines()
    assert lines[0] == "| records | Beam alone s | ms a record |"
    assert 0 < float(lines[2].split("|")[2]) < 60
    assert lines[-1].endswith("beside 100 ms of device time a record.")


@pytest.mark.slow
def test_runs_of_the_tiny_bark(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.scale.DEVICE_RECORDS", 10)
    monkeypatch.setattr("benchmarks.scale.REPEATS", 1)
    bench = Bench(tmp_path)
    records, seconds = scale_table(bench, [10]).splitlines()[2].split("|")[1:3]
    assert (int(records), float(seconds)) == (
        10,
        pytest.approx(18, abs=0.5),
    )  # every clip is as long as the model allows
    assert devices_table(bench, [1, 2]).count("the same") == 2
    assert spoken(2) == ["Short record 0.", "Short record 1."]
