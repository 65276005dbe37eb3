"""Progress: what workers report, and what the terminal says of it."""

# ruff: noqa: E501 (a message a line reads better than folded ones)

import io

import pytest

from pipeline.errors import UsageError
from pipeline.progress import VARIABLE, Display, Reader, Tally, describe, errors_reported, report


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


@pytest.mark.parametrize(
    ("tally", "elapsed_s", "text"),
    [
        (Tally(), 1, "reading"),
        (Tally(records=10), 1, "0 of 10 records"),
        (Tally(records=10, done=5, made=5, audio_s=120), 60, "5 of 10 records, 2.0 min of audio, 2 x real time, about 60 s left"),
        (Tally(records=10, done=8, failed=2, made=5), 60, "10 of 10 records, 2 failed"),
    ],
)  # fmt: skip
def test_what_is_shown(tally, elapsed_s, text):
    assert describe(tally, elapsed_s) == text


def test_a_terminal_has_one_line_and_a_log_few():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, log = Terminal(), io.StringIO()
    for stream in (terminal, log):
        display = Display(stream)
        for done in range(3):
            display.show(Tally(records=3, done=done))
        display.show(Tally(records=3, done=3), last=True)
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().count("\r") == 4
    assert log.getvalue() == "3 of 3 records\n"
