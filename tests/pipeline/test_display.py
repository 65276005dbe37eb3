"""What a terminal or a log is told while a run goes on."""

# ruff: noqa: E501 (a message a line reads better than folded ones)

import io

import pytest

from bark_model.engine_stats import Usage
from pipeline.display import Display, describe, describe_compiled, describe_usage
from pipeline.progress import Tally


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
        display.tell(["one", "two"])
        display.show(Tally(records=3, done=3), last=True)
    assert terminal.getvalue().count("\n") == 3
    assert terminal.getvalue().count("\r") == 5
    assert "\r\x1b[2Kone\ntwo\n" in terminal.getvalue()
    assert log.getvalue() == "one\ntwo\n3 of 3 records\n"


def test_rate_and_time_left_do_not_count_the_warm_up(monkeypatch):
    now, log = [1000.0], io.StringIO()
    monkeypatch.setattr("pipeline.display.time.monotonic", lambda: now[0])
    display = Display(log)
    for start_up_s in (600, 60):  # the second is that of a job that was started again
        now[0] += start_up_s
        display.show(Tally(records=4))
        now[0] += 20
        display.show(Tally(records=4, done=1, made=1, audio_s=40, warm=True))
    lines = [line for line in log.getvalue().splitlines() if "left" in line]
    assert lines == ["1 of 4 records, 40 s of audio, 2 x real time, about 60 s left"] * 2


def test_where_device_time_went():
    usage = {"semantic": Usage(30, 93, 100), "coarse": Usage(90, 19, 20)}
    assert (
        describe_usage(usage)
        == "slots busy: semantic 93 %, coarse 95 %; 2.0 min of device time: semantic 25 %, coarse 75 %"
    )
    assert describe_usage({}) == ""


def test_what_was_compiled_is_one_line_or_all_of_it():
    compiled = {"semantic step [16]": 2.25, "coarse prefill [16, 886]": 97.5}
    first = "warmed up 2 programs in 1.7 min, the longest in 1.6 min: coarse prefill [16, 886]"
    assert describe_compiled(compiled, in_full=False) == [first]
    assert describe_compiled(compiled, in_full=True) == [
        first,
        "  semantic step [16] 2.25 s",
        "  coarse prefill [16, 886] 97.50 s",
    ]
