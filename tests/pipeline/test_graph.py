"""Whole runs on the local runner with a fake Bark, in this process: what comes out, and what a second run does."""

import json
import secrets

import apache_beam as beam
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bark_model.voices import voice_npz
from pipeline import launch
from pipeline.cli import main
from pipeline.graph import build_graph
from pipeline.job import Job
from pipeline.jobfile import load
from pipeline.records import Record

from . import fakes

LONG = "This is a far longer text which must be split, because a clip holds few tokens here. It goes on. And on."


def test_a_run_gives_every_record_its_audio_and_rows_or_its_failure(project):
    project.write(
        a_txt="Hello there.\n\nThe second line.\nNOSPEECH here.\n",
        b_jsonl=[{"id": "x", "text": "One.", "seed": 7, "document": "d", "index": 3}, {"id": "long", "text": LONG}],
        c_jsonl='{"id": "bad"\n{"id": "voiceless", "text": "Two.", "voice": "random_9"}\n',
    )
    assert project.run() == 3
    assert project.failed() == {"a.txt:4": "NoSpeech", "c.jsonl:1": "BadJson", "voiceless": "UnknownVoice"}
    rows = project.rows()
    assert {row.record_id for row in rows.values()} == {"a.txt:1", "a.txt:3", "x", "long"}
    row = rows["x/0"]
    assert (row.seed, row.document, row.index, row.text, row.source) == (7, "d", 3, "One.", "b.jsonl")
    assert (row.voice, row.voice_hash, row.slots, row.dtype, row.attempt, row.stop_reason) == (
        None,
        None,
        16,
        "float32",
        0,
        "eos",
    )
    assert json.loads(row.sampling)["semantic"]["min_eos_p"] == 0.2
    assert (row.num_samples, len(project.pcm(row))) == (row.num_frames * 320, row.num_samples)


def test_a_split_record_is_one_audio_with_silence_between_its_chunks(project):
    project.write(b_jsonl=[{"id": "long", "text": LONG}])
    assert project.run(chunk={"silence_s": 0.5}) == 0
    rows = [project.rows()[f"long/{n}"] for n in range(3)]
    assert [LONG[row.source_start : row.source_end] for row in rows] == [row.text for row in rows]
    pcm = project.pcm(rows[0])
    assert len(pcm) == sum(row.num_samples for row in rows) + 2 * 12000
    end = rows[0].num_samples
    assert not pcm[end : end + 12000].any()
    assert pcm[end + 12000 : end + 12100].any()


def test_the_model_is_loaded_once_for_all_units(project):
    project.write(a_txt="".join(f"This is line {n} of many.\n" for n in range(12)))
    assert project.run() == 0
    assert len(project.noted("load")) == 1
    assert len(project.noted("synthesize")) > 3


def test_one_bad_record_costs_one_record(project):
    texts = ["Fine one.", "POISON", "Fine two.", "OOM4 here.", "NAN here."]
    project.write(b_jsonl=[{"id": f"r{n}", "text": text} for n, text in enumerate(texts)])
    assert project.run(unit_audio_s=600) == 3
    assert project.failed() == {"r1": "RuntimeError", "r4": "NonFinite"}
    assert {row.record_id: row.slots for row in project.rows().values()} == {"r0": 4, "r2": 4, "r3": 4}


def test_more_failures_than_allowed_keep_the_work_but_give_no_manifest(project, capsys):
    project.write(b_jsonl=[{"id": f"r{n}", "text": "NOSPEECH" if n < 3 else "Fine."} for n in range(6)])
    assert project.run(max_failed="2") == 1
    assert "3 of 6 records failed, max_failed is 2: the work done is kept" in capsys.readouterr().err
    assert not (project.output / "_MANIFEST.json").exists()
    assert len(project.synthesised()) == 6
    assert project.run(max_failed="50%") == 3
    assert project.synthesised() == []


def test_a_second_run_does_nothing_and_changes_nothing(project):
    project.write(a_txt="One.\nTwo.\n")
    assert project.run() == 0
    before = project.tree()
    project.synthesised()
    assert project.run() == 0
    assert (project.synthesised(), project.tree()) == ([], before)


def test_a_finished_output_starts_no_job_and_a_lost_commit_does(project, monkeypatch):
    project.write(a_txt="One.\nTwo.\n")
    assert project.run() == 0
    before, run_here = project.tree(), launch.supervise
    project.synthesised()
    monkeypatch.setattr(launch, "supervise", lambda *_, **__: pytest.fail("a job was started"))
    assert project.run() == 0
    monkeypatch.setattr(launch, "supervise", run_here)
    (project.output / "_run/commits/0000/000000-00000.json").unlink()
    assert project.run() == 0
    assert (project.synthesised(), project.tree()) == (["a.txt:1/0", "a.txt:2/0"], before)


def test_a_grown_input_runs_only_what_is_new(project):
    project.write(a_txt="One.\nTwo.\n")
    assert project.run() == 0
    before = project.results()
    project.synthesised()
    project.write(b_txt="Three.\n")
    assert project.run() == 0
    assert project.synthesised() == ["b.txt:1/0"]
    assert {key: project.results()[key] for key in before} == before
    assert len(project.results()) == 3


def test_a_changed_record_is_redone_and_its_unit_mates_are_not(project):
    project.write(b_jsonl=[{"id": i, "text": f"Text {i}."} for i in "abc"])
    assert project.run() == 0
    before = project.results()
    project.synthesised()
    project.write(b_jsonl=[{"id": "a", "text": "New."}, {"id": "b", "text": "Text b."}, {"id": "c", "text": "Text c."}])
    assert project.run() == 0
    assert project.synthesised() == ["a/0"]
    after = project.results()
    assert (after["b/0"], after["c/0"], after["a/0"][0]) == (before["b/0"], before["c/0"], "New.")
    assert main(["verify", str(project.output)]) == 0


def test_a_removed_shard_is_reported_and_its_audio_stays(project, capsys):
    project.write(a_txt="One.\n", b_txt="Two.\n")
    assert project.run() == 0
    (project.folder / "in" / "b.txt").unlink()
    capsys.readouterr()
    assert project.run() == 0
    assert "2 of 2 records done, 1 no longer in the input" in capsys.readouterr().out
    assert set(project.rows()) == {"a.txt:1/0", "b.txt:1/0"}


def test_another_configuration_on_the_same_output_needs_force(project, capsys):
    project.write(a_txt="One.\n")
    assert project.run() == 0
    first = project.results()
    capsys.readouterr()
    assert project.run("--seed", "1") == 2
    what = f"{project.output} was made with another configuration (seed was 0, is 1)"
    assert capsys.readouterr().err == f"bark-beam: {what}: choose another output or add --force\n"
    assert project.run("--seed", "1", "--force") == 0
    assert project.results() != first
    assert project.run() == 2
    project.synthesised()
    assert project.run("--seed", "1", "--force") == 0
    assert project.synthesised() == []


def test_a_retry_takes_the_failed_records_alone(project, monkeypatch, capsys):
    project.write(b_jsonl=[{"id": "good", "text": "Fine."}, {"id": "bad", "text": "POISON"}])
    assert project.run() == 3
    monkeypatch.setattr(fakes, "misbehave", lambda text, slots: None)
    project.synthesised()
    assert main(["failed", str(project.output), "--retry"]) == 0
    assert project.synthesised() == ["bad/0"]
    assert (project.failed(), len(project.rows())) == ({}, 2)
    capsys.readouterr()
    assert main(["failed", str(project.output)]) == 0
    assert capsys.readouterr().out == ""


def test_where_nothing_failed_a_retry_does_nothing(project, capsys):
    project.write(a_txt="One.\n")
    assert project.run() == 0
    before = project.tree()
    project.notes.write_text("")
    capsys.readouterr()
    assert main(["failed", str(project.output), "--retry"]) == 0
    assert capsys.readouterr().out == f"nothing failed in {project.output}: nothing is left to try again\n"
    assert (project.tree(), project.noted("load")) == (before, [])


def test_a_retry_draws_anew_where_nothing_was_spoken(project):
    project.write(b_jsonl=[{"id": "quiet", "text": "NOSPEECH"}, {"id": "good", "text": "Fine."}])
    assert project.run() == 3
    assert main(["failed", str(project.output), "--retry"]) == 3
    [commit] = project.store.list("_run/commits/0001/")
    [entry] = json.loads(project.store.read(commit.path))["failed"]
    assert entry["record"]["attempts"] == 2


@pytest.mark.parametrize("runner", ["local", "BundleBasedDirectRunner"])
def test_order_shards_and_units_change_no_result(project, runner):
    texts = [{"id": f"r{n}", "text": f"This is the text of record {n}."} for n in range(10)]
    project.write(a_jsonl=texts)
    assert project.run() == 0
    expected = project.results()
    order = np.random.default_rng(0).permutation(10)
    (project.folder / "in" / "a.jsonl").unlink()
    project.write(
        x_jsonl=[texts[n] for n in order[:3]],
        y_jsonl=[texts[n] for n in order[3:4]],
        z_jsonl=[texts[n] for n in order[4:]],
    )
    project.output = project.folder / "other"
    assert project.run(output=str(project.output), unit_audio_s=2, runner=runner) == 0
    assert project.results() == expected


def test_equal_ids_are_done_once_and_different_ones_fail_before_any_compute(project):
    rows = [{"id": "same", "text": "One."}] * 3 + [{"id": "two", "text": "A."}, {"id": "two", "text": "B."}]
    project.write(a_jsonl=rows)
    assert project.run() == 3
    assert (project.failed(), project.synthesised()) == ({"two": "DuplicateId"}, ["same/0"])


def test_a_run_may_stop_at_tokens(project):
    project.write(a_txt="One.\n")
    assert project.run(stages={"to": "coarse"}) == 0
    [row] = project.rows().values()
    assert (row.fine, row.audio_path, row.coarse.shape[0], row.num_frames) == (None, None, 2, row.coarse.shape[1])


def test_voices_of_the_job_and_of_records(project, capsys):
    project.write(a_jsonl=[{"id": "own", "text": "One.", "voice": "random_1"}, {"id": "jobs", "text": "Two."}])
    assert project.run(voice="random_0") == 0
    assert {i: row.voice for i, row in project.rows().items()} == {"own/0": "random_1", "jobs/0": "random_0"}
    capsys.readouterr()
    assert project.run(voice="randam_0", output=str(project.folder / "none")) == 2
    assert capsys.readouterr().err == "bark-beam: UnknownVoice 'randam_0': near: random_0, random_1\n"
    assert not (project.folder / "none").exists()


def test_an_npz_in_two_spellings_is_one_voice_and_needs_its_file_at_the_start_only(project, checkpoint, monkeypatch):
    project.write(a_txt="One.\nTwo.\n")
    path, preset = project.folder / "v.npz", launch.Preparer(Job(input=("a",), output="b", checkpoint=checkpoint))
    path.write_bytes(voice_npz(preset.voice(Record(id="", text="", source="", line=1, voice="random_0"))))
    monkeypatch.chdir(project.folder)
    assert project.run("--voice", "v.npz", command="plan") == 0  # writes the job file
    checked = launch.check(load("job.yaml", ["--voice", "v.npz"])[0])
    path.rename("moved.npz")
    assert launch.launch(checked, []) == 0
    assert {row.voice for row in project.rows().values()} == {str(path)}
    project.synthesised()
    project.write(b_txt="Three.\n")
    assert project.run("--voice", "./in/../moved.npz") == 0
    assert project.synthesised() == ["b.txt:1/0"]


def test_a_records_voice_opens_no_file(project):
    voices = ["../x", "/etc/passwd", "https://x/v.npz", "in/v.npz", "a\nb", ""]
    project.write(a_jsonl=[{"id": str(n), "text": "One.", "voice": voice} for n, voice in enumerate(voices)])
    assert project.run() == 3
    assert {project.failed()[str(n)] for n in range(5)} == {"UnknownVoice"}


@pytest.mark.parametrize(("audio_format", "where"), [("wav", "parquet"), ("opus", "files")])
def test_other_formats(project, audio_format, where):
    project.write(a_txt="One.\nTwo.\n")
    assert project.run(audio={"format": audio_format, "where": where}) == 0
    paths = {row.audio_path for row in project.rows().values()}
    assert len(paths) == (1 if where == "parquet" else 2)
    assert all(path.endswith("parquet" if where == "parquet" else audio_format) for path in paths)


def test_nothing_is_shuffled_after_the_units_are_spread(project):
    project.write(a_txt="One.\n")
    assert project.run() == 0
    job, _ = load(str(project.folder / "job.yaml"))
    pipeline = beam.Pipeline()
    build_graph(pipeline, job, launch.check(job).plan)
    transforms = pipeline.to_runner_api().components.transforms.values()
    shuffles = {one.unique_name.split("/")[0] for one in transforms if "group_by_key" in one.spec.urn}
    assert shuffles == {"SpreadShards", "SpreadCommits", "GroupByBucket", "SpreadUnits"}


def test_the_stored_job_holds_no_option_of_the_runner(project):
    project.write(a_txt="One.\n")
    assert project.run("--environment_config", '{"env": {"PASSWORD": "hunter2"}}') == 0
    assert all(b"hunter2" not in content for content in project.tree().values())
    assert b"temperature: 0.7" in project.tree()["_run/job.yaml"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.sampled_from(["One.", "Two three.", "POISON", "NOSPEECH", "...", ""]), min_size=1, max_size=12),
    ids=st.lists(st.integers(0, 5), min_size=12, max_size=12),
    unit_audio_s=st.sampled_from([1, 3, 600]),
)
def test_every_id_that_goes_in_is_done_or_failed(project, texts, ids, unit_audio_s):
    project.write(a_jsonl=[{"id": f"r{i}", "text": text} for i, text in zip(ids, texts, strict=False)])
    project.output = project.folder / secrets.token_hex(8)
    assert project.run(output=str(project.output), unit_audio_s=unit_audio_s) in (0, 3)
    done, failed = {row.record_id for row in project.rows().values()}, set(project.failed())
    assert done | failed == {f"r{i}" for i, _ in zip(ids, texts, strict=False)}
    assert not done & failed
