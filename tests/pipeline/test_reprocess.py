"""`job: reprocess`: any stage again from stored tokens, and codes from audio files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from pipeline.cli import main
from pipeline.outputs.tokens import write_tokens
from pipeline.plan import latest_plan

from . import fakes

TEXT = "This is a far longer text which must be split, because a clip holds few tokens here. It goes on."


@pytest.fixture
def first(project):
    """A finished run with voices, and the same project pointed at a second output."""
    project.write(a_jsonl=[{"id": "x", "text": "One.", "voice": "random_1", "seed": 5}, {"id": "long", "text": TEXT}])
    assert project.run() == 0
    rows = project.rows()
    project.values["input"] = str(project.output)
    project.output = project.folder / "again"
    project.values |= {"job": "reprocess", "output": str(project.output)}
    project.notes.write_text("")
    return rows


def changed(before, after) -> set[str]:
    """The stages whose tokens differ."""
    return {
        stage
        for stage in ("semantic", "coarse", "fine")
        for key, row in before.items()
        if not np.array_equal(getattr(row, stage), getattr(after[key], stage))
    }


def test_from_semantic_other_voices_and_seeds_make_other_codes(project, first):
    assert project.run(stages={"from": "semantic"}, voice="random_0", seed=9) == 0
    rows = project.rows()
    assert changed(first, rows) == {"coarse", "fine"}
    row = rows["x/0"]
    assert (row.voice, row.seed, row.text, row.source, row.stop_reason) == ("random_0", 9, "One.", "a.jsonl", "eos")
    reused = json.loads(row.sampling)["reused"]
    assert (reused["stage"], reused["voice"], reused["seed"]) == ("semantic", "random_1", 5)
    assert reused["sampling"]["compat"] == "suno"


def test_without_new_settings_a_record_keeps_its_voice_and_seed(project, first):
    assert project.run(stages={"from": "semantic"}) == 0
    assert {key: (row.voice, row.seed) for key, row in project.rows().items()} == {
        "x/0": ("random_1", 5),
        **{f"long/{n}": (None, 0) for n in range(len(first) - 1)},
    }


@pytest.mark.parametrize(("start", "remade"), [("coarse", {"fine"}), ("fine", set())])
def test_from_codes_only_later_stages_are_made(project, first, start, remade):
    assert project.run(stages={"from": start}, audio={"format": "wav"}) == 0
    rows = project.rows()
    assert changed(first, rows) == remade
    assert all(row.audio_path.endswith(".wav") for row in rows.values())
    if start == "fine":
        assert {key: row.audio_sha256 for key, row in rows.items()} == {
            key: row.audio_sha256 for key, row in first.items()
        }
        assert (rows["x/0"].voice, rows["x/0"].voice_hash) == ("random_1", first["x/0"].voice_hash)


def test_tokens_of_another_model_need_force(project, first, tmp_path, capsys):
    from bark_model.random_checkpoint import write_random

    write_random(tmp_path / "other", seed=1)
    capsys.readouterr()
    assert project.run(stages={"from": "fine"}, checkpoint=str(tmp_path / "other")) == 2
    assert "holds tokens of the model" in capsys.readouterr().err
    assert project.run("--force", stages={"from": "fine"}, checkpoint=str(tmp_path / "other")) == 0


@pytest.fixture
def mixed(project, first):
    """The first run's tokens as one file, the second record's said to be of another model."""
    rows = [replace(row, model_sha256="f" * 64) if row.record_id == "long" else row for row in first.values()]
    (project.folder / "mixed.parquet").write_bytes(
        write_tokens(sorted(rows, key=lambda row: (row.record_id == "long", row.id)))
    )
    project.values |= {"input": f"{project.folder}/mixed.parquet", "stages": {"from": "fine", "to": "audio"}}


def test_a_record_of_another_model_fails_alone_until_forced(project, mixed, capsys):
    assert project.run(command="plan") == 0
    assert "mixed.parquet:2: OtherModel: tokens are of the model 'ffffffffffff'" in capsys.readouterr().out
    assert project.run() == 3
    assert (project.failed(), list(project.rows())) == ({"long": "OtherModel"}, ["x/0"])
    assert project.run("--force") == 0
    assert len(project.rows()) == 4
    assert project.noted("synthesize")[-1] == "long/0 long/1 long/2"


def test_a_forced_run_stays_forced_when_it_grows_or_is_retried(project, mixed, monkeypatch):
    monkeypatch.setattr(fakes, "misbehave", lambda text, slots: 1 / 0 if "must be split" in text else None)
    assert project.run("--force") == 3
    assert project.failed() == {"long": "ZeroDivisionError"}
    monkeypatch.undo()
    assert main(["failed", str(project.output), "--retry"]) == 0
    assert len(project.rows()) == 4
    assert project.run() == 0


def test_a_run_is_no_input_of_an_output_inside_it(project, first, capsys):
    inside = str(project.folder / "out" / "again")
    assert project.run(stages={"from": "fine"}, output=inside) == 2
    assert capsys.readouterr().err.startswith(f"bark-beam: output {inside!r} lies inside the input ")


def test_recordings_become_codes_and_a_bad_file_costs_itself_and_is_known_to_plan(project, capsys):
    folder = project.folder / "wavs"
    folder.mkdir()
    wave = np.sin(np.arange(9600) / 20).astype(np.float32) * 0.5
    soundfile.write(folder / "a.wav", wave, 24000)
    soundfile.write(folder / "b.flac", wave[:4800], 24000)
    soundfile.write(folder / "slow.wav", wave, 16000)
    (folder / "torn.flac").write_bytes((folder / "b.flac").read_bytes()[:100])
    values = {"input": f"{folder}/*", "job": "reprocess", "stages": {"from": "audio", "to": "fine"}}
    assert project.run(command="plan", **values) == 0
    shown = capsys.readouterr().out
    assert "will fail   2 records: BadAudio" in shown
    assert "slow.wav:1: BadAudio: sample rate is 16000 Hz, must be 24000 Hz: resample it" in shown
    assert project.run(**values) == 3
    assert project.failed() == {"slow.wav": "BadAudio", "torn.flac": "BadAudio"}
    rows = project.rows()
    assert {key: (row.coarse.shape, row.fine.shape) for key, row in rows.items()} == {
        "a.wav/0": ((2, 30), (8, 30)),
        "b.flac/0": ((2, 15), (8, 15)),
    }
    assert (rows["a.wav/0"].text, rows["a.wav/0"].audio_path) == (None, None)
    assert len(latest_plan(project.store).shards) == 4
    assert project.run(**values) == 3


def test_a_finished_runs_record_becomes_a_voice(project, first, tmp_path, capsys):
    voice = tmp_path / "mine.npz"
    run = str(project.folder / "out")
    assert main(["voices", "from", run, "long", "-o", str(voice)]) == 0
    assert main(["voices", "check", str(voice), "--checkpoint", project.values["checkpoint"]]) == 0
    with np.load(voice) as arrays:
        assert np.array_equal(arrays["fine_prompt"], first["long/0"].fine)
    assert project.run(stages={"from": "semantic"}, voice=str(voice)) == 0
    assert {row.voice for row in project.rows().values()} == {str(voice)}
