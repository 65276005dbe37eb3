"""Host work beside the device: what is under way at once, and that nothing is lost, left behind or misplaced by it."""

import threading
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from pipeline import steps
from pipeline.manifest import load_manifest
from pipeline.overlap import OverlappedDoFn
from pipeline.store import NoSpace
from pipeline.verify import verify

from . import fakes

WAIT_S = 60
"""Far longer than anything here takes: a wait that ends by it fails its test."""


def wait(event: threading.Event) -> None:
    assert event.wait(WAIT_S), "what was to happen meanwhile did not"


class Fake(OverlappedDoFn):
    """Doubles numbers, refuses negative ones, and keeps the 4 to itself."""

    def work(self, element: int) -> int:
        if element < 0:
            raise ValueError(f"{element} is negative")
        return 2 * element

    def outputs(self, worked: int):
        if worked != 4:
            yield worked


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("Fake")]


@pytest.mark.parametrize("runner", ["FnApiRunner", "BundleBasedDirectRunner"])
def test_every_output_comes_in_the_window_of_its_element(runner):
    def placed(element, time=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam):
        return element, int(time), int(window.start)

    with beam.Pipeline(runner=runner) as pipeline:
        outputs = (
            pipeline
            | beam.Create([TimestampedValue(n, 10 * n) for n in range(5)])
            | beam.WindowInto(FixedWindows(20))
            | beam.ParDo(Fake())
            | beam.Map(placed)
        )
        assert_that(outputs, equal_to([(0, 0, 0), (2, 10, 0), (6, 30, 20), (8, 40, 40)]))


@pytest.mark.parametrize("numbers", [[-1], [1, 2, -1], [-1, 1, 2]])
def test_an_error_fails_the_bundle_and_no_thread_stays(numbers):
    with pytest.raises(ValueError, match="-1 is negative"), beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = pipeline | beam.Create(numbers) | beam.Reshuffle() | beam.ParDo(Fake())
    assert running() == []


def test_an_empty_bundle_gives_nothing():
    step = Fake()
    step.setup()
    step.start_bundle()
    assert list(step.finish_bundle()) == []
    step.teardown()


def test_what_a_failed_bundle_left_is_no_output_of_the_next():
    step = Fake()
    step.setup()
    step.start_bundle()
    assert list(step.process(1, 0, None)) == []
    step.start_bundle()
    assert list(step.finish_bundle()) == []
    step.teardown()
    assert running() == []


def three_units(project) -> None:
    project.values["unit_audio_s"] = 1
    project.write(a_jsonl=[{"id": f"r{n}", "text": f"This is record number {n}."} for n in range(3)])


def test_a_unit_is_synthesised_while_the_one_before_is_committed(project, monkeypatch):
    """The first commit does not end before the second synthesis began."""
    three_units(project)
    began, commit_unit, synthesize = threading.Event(), steps.commit_unit, fakes.Bark.synthesize
    calls, commits = [], []

    def watched(self, requests, *, to):
        calls.append(len(requests))
        if len(calls) == 2:
            began.set()
        return synthesize(self, requests, to=to)

    def slow(*args, **kwargs):
        commits.append(len(calls))
        wait(began)
        return commit_unit(*args, **kwargs)

    monkeypatch.setattr(fakes.Bark, "synthesize", watched)
    monkeypatch.setattr(steps, "commit_unit", slow)
    assert project.run() == 0
    assert (calls, commits[-1]) == ([1, 1, 1], 3)
    assert load_manifest(project.store).done == 3


def test_a_unit_is_made_ready_while_the_one_before_is_synthesised(project, monkeypatch):
    """The first synthesis does not end before the second unit's requests were asked for."""
    three_units(project)
    began, find_commit, synthesize = threading.Event(), steps.find_commit, fakes.Bark.synthesize
    asked = []

    def watched(store, name):
        asked.append(name)
        if len(asked) == 2:
            began.set()
        return find_commit(store, name)

    def slow(self, requests, *, to):
        wait(began)
        return synthesize(self, requests, to=to)

    monkeypatch.setattr(steps, "find_commit", watched)
    monkeypatch.setattr(fakes.Bark, "synthesize", slow)
    assert project.run() == 0
    assert len(asked) == 3


def test_no_unit_waits_for_its_commit_but_the_one_before(project, monkeypatch):
    """Memory: the third synthesis does not begin before the first commit ended."""
    three_units(project)
    commit_unit, synthesize = steps.commit_unit, fakes.Bark.synthesize
    order = []

    def committed(store, name, *args, **kwargs):
        made = commit_unit(store, name, *args, **kwargs)
        order.append("commit")
        return made

    def watched(self, requests, *, to):
        order.append("synthesize")
        return synthesize(self, requests, to=to)

    monkeypatch.setattr(steps, "commit_unit", committed)
    monkeypatch.setattr(fakes.Bark, "synthesize", watched)
    assert project.run() == 0
    third = [place for place, what in enumerate(order) if what == "synthesize"][2]
    assert "commit" in order[:third]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_commit_that_fails_ends_the_run_with_what_was_committed_kept(project, monkeypatch, capsys, at):
    """Also the last one, which nothing follows that would wait for it."""
    three_units(project)
    commit_unit, tries = steps.commit_unit, []

    def full(*args, **kwargs):
        tries.append(1)
        if len(tries) == at:
            raise NoSpace("the disk is full: free some space and run again")
        return commit_unit(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "commit_unit", full)
        assert project.run() == 1
    assert "the disk is full" in capsys.readouterr().err
    assert not Path(project.output / "_MANIFEST.json").exists()
    kept = len(list(project.store.list("_run/commits/")))
    assert kept >= at - 1
    project.synthesised()
    assert project.run() == 0
    assert len(project.synthesised()) == 3 - kept
    assert verify(project.store).is_whole
