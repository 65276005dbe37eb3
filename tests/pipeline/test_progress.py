"""Progress: what workers report, and what it adds up to."""

import pytest

from bark_model.engine_stats import Usage
from pipeline.errors import UsageError
from pipeline.progress import VARIABLE, Reader, Tally, errors_reported, report


def test_reports_add_up_and_half_a_line_waits_for_its_rest(tmp_path, monkeypatch):
    path = tmp_path / "progress"
    path.touch()
    monkeypatch.setenv(VARIABLE, str(path))
    reader, tally = Reader(str(path)), Tally()
    report(records=5)
    report(done=1, failed=1, made=2, audio_s=1.5)
    reader.read(tally)
    with path.open("a") as file:
        file.write('{"do')
    reader.read(tally)
    with path.open("a") as file:
        file.write('ne": 2}\nno json\n')
    reader.read(tally)
    reader.close()
    assert tally == Tally(records=5, done=3, failed=1, made=2, audio_s=1.5)


def test_a_worker_with_nothing_to_compile_is_warm_too():
    tally = Tally()
    tally.add('{"start_up_s": 4}')
    assert not tally.warm
    tally.add('{"compiled": {}, "start_up_s": 1}')
    assert tally.warm


def test_nobody_listens(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    report(done=1)
    monkeypatch.setenv(VARIABLE, "/no/such/file")
    report(done=1)


def test_an_error_is_reported_in_its_own_words(tmp_path, monkeypatch):
    path = tmp_path / "progress"
    path.touch()
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(UsageError, match="a is 1"), errors_reported():
        raise UsageError("a is 1")
    tally = Tally()
    tally.add(path.read_text())
    assert tally.error == {"error": "a is 1", "exit_code": 2, "kind": "UsageError"}


def test_what_several_workers_used_adds_up_in_the_order_of_the_stages():
    tally, other = Tally(), Tally()
    tally.add('{"compiled": {"coarse step [16]": 2.5, "fine [16]": 1}, "start_up_s": 4}')
    tally.add('{"compiled": {"coarse step [16]": 2, "codec [16]": 3}, "device": "gpu x 2", "start_up_s": 3}')
    tally.add('{"usage": {"coarse": [1.5, 6, 8]}}')
    tally.add('{"usage": {"semantic": [1, 1, 8], "coarse": [0.5, 1, 4]}}')
    assert tally.warm
    assert tally.compiled == {"coarse step [16]": 2.5, "fine [16]": 1, "codec [16]": 3}
    assert list(tally.usage.items()) == [("semantic", Usage(1, 1, 8)), ("coarse", Usage(2, 7, 12))]
    other.add_made(tally)
    other.add_made(tally)
    assert (other.start_up_s, other.compiled) == (14, tally.compiled)
    assert other.device == "gpu x 2"
    assert other.usage == {"semantic": Usage(2, 2, 16), "coarse": Usage(4, 14, 24)}
