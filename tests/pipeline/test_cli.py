"""The command line: exit codes, one line an error, and what must not be imported."""

# ruff: noqa: E501 (a message a line reads better than folded ones)

import os
import subprocess
import sys

import pytest

from pipeline.cli import main
from pipeline.store import Denied


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND: see bark-beam --help"),
        (["status"], "the following arguments are required: output: see bark-beam status --help"),
        (["status", "x", "--y"], "unknown argument '--y': see bark-beam status --help"),
        (["failed", "x", "--y"], "unknown argument '--y': see bark-beam failed --help"),
        (["failed", "x", "--retyr"], "unknown argument '--retyr': did you mean 'retry'?"),
        (["say", "Hi.", "--sede=3"], "unknown argument '--sede=3': did you mean 'seed'?"),
        (["say", "Hi.", "--seed", "0", "--seed", "1"], "--seed is given more than once: see bark-beam say --help"),
        (["voices", "list", "--chekpoint", "x"], "unknown argument '--chekpoint': did you mean 'checkpoint'?"),
        (["rnu", "x.yaml"], "unknown command 'rnu': did you mean 'run'?"),
        (["voices", "lst"], "unknown action 'lst': did you mean 'list'?"),
        (["export", "x", "--format", "hff"], "unknown format 'hff': did you mean 'hf'?"),
        (["export", "x", "--format", "csv"], "unknown format 'csv', must be one of hf, ljspeech, nemo, webdataset"),
        (["run", "none.yaml"], "none.yaml: there is no such job file"),
        (["say", "Hi.", "-o", "x.aiff"], "output 'x.aiff' must end with .flac, .wav, .mp3, .opus"),
        (["say", "Hi.", "-o", "no/where/x.wav"], "output 'no/where/x.wav' lies in no folder that is there: make it first"),
        (["say", "Hi.", "-o", "d.wav"], "output 'd.wav' is a folder: name a file"),
        (["voices", "from", "x", "id", "-o", "no/v.npz"], "output 'no/v.npz' lies in no folder that is there: make it first"),
        (["say", "Hi.", "--checkpoint", "./none"], "checkpoint './none' is no folder: give 'demo', a folder, gs://... or a hub name such as suno/bark"),
        (["voices", "check", "none.npz"], "none.npz: there is no such file"),
        (["status", "ftp://x/y"], "output 'ftp://x/y' has the scheme 'ftp': use a local folder or gs://bucket/prefix"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line_and_exit_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.wav").mkdir()
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"bark-beam: {message}\n"


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("run", ["--forse"], "unknown option 'forse': did you mean 'force'?"),
        ("plan", ["--raet", "2"], "unknown option 'raet': did you mean 'rate'?"),
        ("plan", ["--slots", "8"], "unknown option 'slots': did you mean 'devices.slots'?"),
        ("plan", ["--seed", "1", "--seed", "2"], "--seed is given 2 times, takes one value"),
        ("plan", ["--rate", "1", "--rate", "1"], "--rate is given more than once: see bark-beam plan --help"),
        ("plan", ["--direct_num_workers", "1", "--direct_num_workers", "2"], "option 'direct_num_workers' has 2 values, takes one"),
    ],
)  # fmt: skip
def test_flags_of_a_job_are_never_dropped(project, capsys, command, flags, message):
    project.write(a_txt="One.\n")
    assert project.run(*flags, command=command) == 2
    assert capsys.readouterr().err == f"bark-beam: {message}\n"


def test_a_mistyped_key_of_the_file_names_the_one_that_begins_so(project, capsys):
    assert project.run(command="plan", sampling={"semantic": {"temp": 1}}) == 2
    assert (
        "unknown key 'sampling.semantic.temp': did you mean 'sampling.semantic.temperature' or"
        in capsys.readouterr().err
    )
    assert project.run(command="plan", slots=8) == 2
    assert "unknown option 'slots': did you mean 'devices.slots'?" in capsys.readouterr().err


def test_several_inputs_are_read_together(project, capsys):
    project.write(a_txt="One.\n", b_txt="Two.\n", c_txt="Three.\n")
    place = project.folder / "in"
    assert project.run("--input", f"{place}/a.txt", f"--input={place}/c.txt", command="plan") == 0
    assert "records     2," in capsys.readouterr().out


def started(
    arguments: list[str], environment: dict[str, str], stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess:
    """`bark-beam` in a process of its own."""
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=os.environ | environment)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_left_is_no_error(checkpoint, unbuffered):
    """As in `bark-beam voices | head -0`, whenever the lines are written."""
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["voices", "list", "--checkpoint", checkpoint]
    done = started(arguments, {"PYTHONUNBUFFERED": unbuffered}, writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1 if unbuffered else 0, b"")


def test_an_encoding_that_lacks_a_sign_shows_its_number(project):
    project.write(a_jsonl=[{"id": "é♪", "text": "..."}])
    assert project.run() == 3
    ascii_locale = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    for environment in ({"PYTHONIOENCODING": "ascii"}, ascii_locale):
        done = started(["failed", str(project.output)], environment)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b'{"id": "\\xe9\\u266a"')


@pytest.mark.parametrize(
    "words", ["status OUT", "verify OUT", "failed OUT", "export OUT --format hf", "voices from OUT id"]
)
def test_an_output_where_nothing_ran_is_wrong_use(words, capsys, tmp_path):
    nowhere = tmp_path / "nowhere"
    assert main([str(nowhere) if word == "OUT" else word for word in words.split()]) == 2
    assert capsys.readouterr().err == f"bark-beam: {nowhere} holds no run: check the path\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    ["status OUT", "verify OUT", "failed OUT", "failed OUT --retry", "export OUT --format hf", "voices from OUT id"],
)
def test_an_output_nobody_may_read_is_exit_2(words, capsys, monkeypatch):
    def denied(uri):
        raise Denied(f"{uri}: access denied (403)")

    monkeypatch.setattr("pipeline.status.open_store", denied)
    assert main(["gs://b/out" if word == "OUT" else word for word in words.split()]) == 2
    assert capsys.readouterr().err == "bark-beam: gs://b/out: access denied (403)\n"


def test_a_target_that_cannot_be_written_is_refused(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, whom nothing stops
    assert main(["say", "Hi.", "-o", str(tmp_path / "x.wav")]) == 2
    assert "is not writable: choose another place, or change its permissions" in capsys.readouterr().err


def test_a_voice_file_is_read_within_its_limit(capsys, tmp_path):
    file = tmp_path / "large.npz"
    with file.open("wb") as opened:
        opened.truncate(1 << 42)  # holes: nothing of it lies on the disk
    assert main(["voices", "check", str(file)]) == 2
    assert "more than 67108864 bytes" in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys):
    assert main(["run", "none.yaml", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_one_line_too(capsys, monkeypatch):
    def broken(uri):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("pipeline.commands.inspect.open_run", broken)
    assert main(["status", "x"]) == 1
    expected = "bark-beam: unexpected ZeroDivisionError: first line: run with --debug for the traceback\n"
    assert capsys.readouterr().err == expected


def test_help_names_every_command():
    shown = subprocess.run([sys.executable, "-m", "pipeline.cli", "--help"], capture_output=True, text=True, check=True)
    for command in ("run", "plan", "say", "status", "verify", "failed", "voices", "weights", "export"):
        assert f"\n    {command} " in shown.stdout
    assert shown.stderr == ""


def test_the_launchers_commands_import_neither_jax_nor_torch_nor_beam(project, checkpoint):
    project.write(a_txt="One.\nNOSPEECH\n")
    assert project.run() == 3
    job = str(project.folder / "job.yaml")
    commands = [["--help"], ["plan", job], *([name, str(project.output)] for name in ("status", "failed", "verify"))]
    code = (
        "import sys; from pipeline.cli import main\n"
        f"for arguments in {commands!r}:\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        "print({'jax', 'torch', 'apache_beam', 'flax'} & set(sys.modules))"
    )
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    root = os.getcwd()
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean | {"PYTHONPATH": root}
    )
    assert shown.stdout.splitlines()[-1] == "set()", shown.stderr


def test_say_speaks_one_text(project, tmp_path, capsys):
    path = str(tmp_path / "hello.flac")
    checkpoint = project.values["checkpoint"]
    assert main(["say", "Hello there.", "-o", path, "--checkpoint", checkpoint, "--voice", "random_0"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{path}: ")
    assert "has random weights, its audio is noise" in said.err
    assert main(["say", "NOSPEECH", "-o", path, "--checkpoint", checkpoint]) == 1
    assert "NoSpeech: no semantic token was drawn" in capsys.readouterr().err
    assert main(["say", " ... ", "-o", path, "--checkpoint", checkpoint]) == 2
    assert "EmptyText" in capsys.readouterr().err


def test_plan_counts_and_names_what_will_fail(project, capsys):
    project.write(
        a_txt="One.\nTwo.\n",
        b_jsonl=[{"id": "x", "text": "A."}, {"id": "x", "text": "B."}, {"id": "v", "text": "C.", "voice": "nobody"}],
    )
    assert project.run("--rate", "2", "--price", "3", command="plan") == 0
    shown = capsys.readouterr().out
    assert "records     4, 0 documents, 2 chunks, 8 tokens" in shown
    assert "will fail   1 records: DuplicateId" in shown
    assert "            b.jsonl:1: DuplicateId: b.jsonl:2 is another record with this id: make ids unique\n" in shown
    assert "b.jsonl:3: UnknownVoice: voice 'nobody': near: random_0, random_1" in shown
    assert "at 2 x real time, about 0.01 at 3 an hour" in shown
    assert not project.output.exists()
    assert project.run("--rate", "0", command="plan") == 2


def test_plan_counts_what_is_done_and_what_is_left(project, capsys):
    """Before, after, and with a grown input: only what has no result yet is timed."""

    def lines() -> list[str]:
        capsys.readouterr()
        assert project.run("--rate", "1", command="plan") == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("done", "output", "about"))]

    project.write(a_txt="One little sentence.\n")
    done, output, _ = lines()
    assert (done, output.partition(": ")[2]) == ("done        0 records", "starts generation 0")
    assert project.run() == 0
    done, output, price = lines()
    assert (done, output.partition(": ")[2]) == ("done        1 records", "resumes generation 0")
    assert price == "about 0.00 h at 1 x real time"
    project.write(b_txt="Another one.\n" + "It goes on for quite a while, this one. " * 10 + "\n")
    done, output, price = lines()
    assert (done, output.partition(": ")[2]) == ("done        1 records", "starts generation 1")
    assert price == "about 0.01 h at 1 x real time"


def test_a_misspelt_beam_option_is_one_line(project):
    """In a fresh process: Beam itself would add a warning of its own on being imported."""
    project.write(a_txt="One.\n")
    project.run(command="plan")
    job = str(project.folder / "job.yaml")
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "plan", job, "--direct_num_wokers", "2"], capture_output=True, text=True
    )
    assert shown.returncode == 2
    assert shown.stderr == (
        "bark-beam: unknown option 'direct_num_wokers': did you mean 'direct_num_workers' or 'num_workers'?\n"
    )


def test_an_export_lies_beside_its_output_unless_told(project, tmp_path, capsys):
    project.write(a_txt="One.\n")
    assert project.run() == 0
    capsys.readouterr()
    assert main(["export", str(project.output), "--format", "ljspeech"]) == 0
    beside = project.output.with_name("out-ljspeech")
    assert capsys.readouterr().out.startswith(f"{beside}: 1 records, ")
    assert main(["export", f"{project.output}/", "--format", "ljspeech", "-o", str(tmp_path / "there")]) == 0
    for folder in (beside, tmp_path / "there"):
        assert (folder / "metadata.csv").read_text(encoding="utf-8").count("\n") == 1


def test_plan_refuses_an_input_of_which_nothing_can_be_spoken(project, capsys):
    project.write(a_txt="...\n---\n")
    assert project.run(command="plan") == 2
    assert "none of 2 records can be synthesised: see the failures above" in capsys.readouterr().err


def test_plan_refuses_more_known_failures_than_the_job_allows(project, capsys):
    project.write(a_txt="One.\nTwo.\n...\n---\n")
    assert project.run(command="plan", max_failed="1") == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == (
        "bark-beam: 2 of 4 records are known to fail, max_failed is 1: mend them, or raise --max_failed"
    )
    assert "a.txt:3: EmptyText" in shown.out
    assert project.run(command="plan", max_failed="2") == 0


def test_a_repeated_id_of_which_nothing_can_be_made_is_refused(project, capsys):
    project.write(a_jsonl=[{"id": "x", "text": "A."}, {"id": "x", "text": "B."}])
    assert project.run(command="plan") == 2
    assert "none of 1 records can be synthesised: see the failures above" in capsys.readouterr().err


@pytest.mark.parametrize("texts", [{"a_txt": ""}, {"a_csv": "id,text\n", "b_jsonl": "", "c_txt": "\n"}])
def test_an_input_that_holds_nothing_is_refused_before_a_model_is_loaded(project, capsys, texts):
    project.write(**texts)
    for command in ("plan", "run"):
        assert project.run(command=command) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said == f"bark-beam: input '{project.folder}/in/*' holds no record: are these the right files?"
    assert project.noted("load") == []
    assert not project.output.exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "{in}/a.txt"}, "output '{in}/a.txt' is the input, too: choose another output"),
        ({"input": "{in}/**", "output": "{in}/out"}, "output '{in}/out' lies inside the input '{in}/**': choose another output"),
        ({"input": "{in}/a.txt", "output": "{in}"}, "input '{in}/a.txt' lies inside the output '{in}': choose another output"),
        ({"output": "{in}/a.txt/out"}, "output '{in}/a.txt/out' lies in '{in}/a.txt', which is a file: choose another output"),
        ({"input": "{in}/*.csv"}, "input '{in}/*.csv' matches no file: check the path and the glob"),
        ({"input": "{in}"}, "input '{in}' is a folder: write {in}/* for its files"),
    ],
)  # fmt: skip
def test_inputs_and_outputs_that_cannot_be(project, capsys, values, message):
    project.write(a_txt="One.\n")
    place = str(project.folder / "in")
    filled = {key: value.replace("{in}", place) for key, value in values.items()}
    for command in ("plan", "run"):
        assert project.run(command=command, **filled) == 2
        assert capsys.readouterr().err == f"bark-beam: {message.replace('{in}', place)}\n"


def test_a_read_only_output_is_refused(project, capsys, monkeypatch):
    project.write(a_txt="One.\n")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, whom nothing stops
    assert project.run() == 2
    assert "is not writable: choose another output, or change its permissions" in capsys.readouterr().err


def test_chunks_longer_than_the_checkpoint_reads_are_refused(project, capsys):
    project.write(a_txt="One.\n")
    assert project.run(chunk={"max_tokens": 200}) == 2
    assert "chunk.max_tokens is 200" in capsys.readouterr().err
