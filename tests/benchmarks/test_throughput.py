"""The benchmark scripts from end to end at the tiny size, and the processes they start."""

import importlib
import json
import re

import pytest

from benchmarks import limit, processes, throughput
from benchmarks.workload import clip_lengths, table


@pytest.fixture
def in_this_process(monkeypatch):
    """Contenders without processes of their own, and rates of small products: seconds instead of minutes."""

    def call(function, *, limit_s=None, **arguments):
        module, name = function.split(":")
        try:
            made = getattr(importlib.import_module(f"benchmarks.{module}"), name)(**json.loads(json.dumps(arguments)))
        except (ImportError, ValueError) as error:
            raise processes.ChildFailed(str(error).splitlines()[0]) from error
        return json.loads(json.dumps((made or {}) | {"host_bytes": 2**30}))

    monkeypatch.setattr(throughput, "call", call)
    monkeypatch.setattr(limit, "call", call)
    monkeypatch.setattr(limit, "SIZES_OF_PRODUCTS", {"cpu": (64,)})
    monkeypatch.setattr(limit, "BYTES_READ", {"cpu": 2**16})


def rows(text: str, first_cell: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {first_cell} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.usefixtures("in_this_process")
def test_throughput_prints_every_section(capsys):
    arguments = "--model tiny --clips 2 --slots 2 --rows 2 --dtypes float32 --our-dtypes float32 --modes sdpa static"
    throughput.main(arguments.split())
    printed = capsys.readouterr().out
    # Unit costs, a whole run, a clip alone; of transformers 2 modes that run and 1 that does not.
    assert len(rows(printed, "bark-beam")) == 1 + 1 + 1
    assert len(rows(printed, "transformers")) == 2 + 1 + 1 + 1
    assert "does not support an attention implementation" in rows(printed, "transformers")[2][-1]
    for section in ("Unit costs", "tiny, 2 clips of", "Limit", "First clip of a warm process, alone, 90"):
        assert f"## {section}" in printed
    assert len(re.findall(r"\*\*[\d.]+ times\*\* the best setting of transformers", printed)) == 2
    assert rows(printed, r"**total**")[0][-1].endswith("%")


def test_settings_are_read_from_the_command_line(capsys):
    assert throughput.Setting.parse("ours:bfloat16:8").cells == ["bark-beam", "bfloat16", 8, ""]
    assert throughput.Setting.parse("peers:float32:4:static").cells == ["transformers", "float32", 4, "static"]
    for wrong in ("peers:float32:4", "ours:float32:4:static", "mine:float32:4", "ours:float32:x", "ours"):
        with pytest.raises(SystemExit):
            throughput.main(["--settings", wrong])
        assert f"{wrong!r} is no setting: ours:DTYPE:SLOTS or peers:DTYPE:ROWS:MODE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        throughput.main(["--settings", "ours:float32:8"])
    assert "--settings needs at least one of ours and one of peers" in capsys.readouterr().err


@pytest.mark.usefixtures("in_this_process")
def test_limit_prints_its_table(capsys):
    limit.main("--model tiny --clips 2 --slots 2 --dtype float32".split())
    printed = capsys.readouterr().out
    assert printed.startswith("tiny, float32, 2 slots, 2 clips, ")
    assert len(rows(printed, "coarse")) == 2
    assert rows(printed, r"**total**")[0][-1].endswith("%")


def test_a_process_returns_its_result_and_its_memory(tmp_path):
    made = processes.call("workload:write_checkpoint", folder=str(tmp_path), model="tiny")
    assert (tmp_path / "model.safetensors").exists()
    assert list(made) == ["host_bytes"]
    assert made["host_bytes"] > 2**20


def test_a_process_that_fails_says_why_in_one_line():
    with pytest.raises(processes.ChildFailed, match=r"^AttributeError: module 'benchmarks\.predict' has no attribute"):
        processes.call("predict:nothing")
    with pytest.raises(processes.ChildFailed, match=r"^stopped after 0 s$"):
        processes.call("predict:nothing", limit_s=0.01)


def test_clips_are_the_same_every_time():
    assert clip_lengths(16, 768) == clip_lengths(16, 768)
    assert 60 <= min(clip_lengths(200, 768)) < 70
    assert 490 < max(clip_lengths(200, 768)) <= 500
    assert max(clip_lengths(200, 90)) <= 90


def test_tables_show_three_digits():
    assert (
        table(["a", "b"], [[1.23456, None], [12345.6, "x"]]) == "| a | b |\n| --- | --- |\n| 1.23 |  |\n| 12346 | x |"
    )
