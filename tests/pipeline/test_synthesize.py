"""The model handler in a Beam pipeline of one's own, as docs/model_handler.md shows it."""

import apache_beam as beam
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that, equal_to

from bark_model.outcomes import Failure, Request
from pipeline.errors import UsageError
from pipeline.synthesize import BarkModelHandler


def summary(outcome) -> tuple:
    made = outcome.made
    if isinstance(made, Failure):
        return made.id, made.error
    return made.id, outcome.slots, made.audio is not None, made.fine is not None


@pytest.mark.parametrize("to", ["audio", "semantic"])
def test_requests_become_outcomes_and_no_request_fails_its_batch(project, checkpoint, to):
    handler = BarkModelHandler(checkpoint, slots=4, to=to, min_batch_size=2, max_batch_size=8)
    texts = ["One.", "Two.", "POISON", "NOSPEECH", "Three."]
    requests = [Request(id=f"r{n}", text=text) for n, text in enumerate(texts)]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        outcomes = (
            pipeline
            | beam.Create(requests)
            | RunInference(handler)
            | beam.Map(summary)
        )  # fmt: skip
        full = to == "audio"
        made = [(f"r{n}", 4, full, full) for n in (0, 1, 4)]
        assert_that(outcomes, equal_to([*made, ("r2", "RuntimeError"), ("r3", "NoSpeech")]))
    assert len(project.noted("load")) == 1


def test_other_weights_than_the_planned_ones_are_refused(project, checkpoint):
    with pytest.raises(
        UsageError, match=r"the run was planned with 0123456789ab: use the same weights on every worker"
    ):
        BarkModelHandler(checkpoint, sha256="0123456789abcdef").load_model()


def test_memory_that_runs_out_takes_fewer_slots_for_that_batch_alone(project, checkpoint):
    handler = BarkModelHandler(checkpoint, slots=8)
    model = handler.load_model()
    first = handler.run_inference([Request(id="a", text="OOM2 here."), Request(id="b", text="Fine.")], model)
    assert [outcome.slots for outcome in first] == [2, 2]
    assert [outcome.slots for outcome in handler.run_inference([Request(id="b", text="Fine.")], model)] == [8]


def test_bytes_are_those_of_texts_and_tokens(checkpoint):
    assert BarkModelHandler(checkpoint).get_num_bytes([Request(id="a", text="1234"), Request(id="b")]) == 4
