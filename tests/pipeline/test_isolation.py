"""A bad request is found and costs itself only."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bark_model.outcomes import Failure, Request, Result
from pipeline.isolation import ModelBroken, TimedOut, isolate, slot_ladder, with_timeout

from . import fakes


class Calls:
    """A model that fails as the texts ask and remembers how it was called."""

    def __init__(self):
        self.seen = []

    def __call__(self, requests, slots):
        self.seen.append((len(requests), slots))
        for request in requests:
            fakes.misbehave(request.text or "", slots)
        return [Result(id=request.id) for request in requests]


def requests(*texts: str) -> list[Request]:
    return [Request(id=f"r{n}", text=text) for n, text in enumerate(texts)]


def errors(outcomes) -> list[str | None]:
    return [one.made.error if isinstance(one.made, Failure) else None for one in outcomes]


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_exactly_the_poisoned_fail_and_the_order_stays(poisoned):
    batch = requests(*("POISON" if bad else "Fine." for bad in poisoned))
    outcomes = isolate(Calls(), batch, 4)
    assert [one.made.id for one in outcomes] == [request.id for request in batch]
    assert errors(outcomes) == ["RuntimeError" if bad else None for bad in poisoned]
    assert {one.slots for one in outcomes} == {4}


def test_a_poison_is_found_by_halving_at_the_same_shape():
    call = Calls()
    [*_, last] = isolate(call, requests(*["Fine."] * 7, "POISON"), 4)
    assert last.made == Failure(id="r7", stage="text", error="RuntimeError", message="the poison was swallowed")
    assert call.seen == [(8, 4), (4, 4), (4, 4), (2, 4), (2, 4), (1, 4), (1, 4)]


def test_out_of_memory_goes_down_the_ladder_then_alone_then_fails():
    call = Calls()
    outcomes = isolate(call, requests("Fine.", "OOM2"), 8)
    assert (errors(outcomes), [one.slots for one in outcomes]) == ([None, None], [2, 2])
    assert call.seen == [(2, 8), (2, 4), (2, 2)]
    outcomes = isolate(Calls(), requests("Fine.", "OOM0"), 4)
    assert (errors(outcomes), outcomes[0].slots) == ([None, "OutOfMemory"], 1)


def test_a_model_that_fails_on_everything_blames_no_record():
    def broken(batch, slots):
        raise RuntimeError("the device is lost")

    with pytest.raises(ModelBroken, match=r"fails on every request, also on a plain one.*the device is lost"):
        isolate(broken, requests("One.", "Two."), 4)


def test_a_wrong_number_of_answers_is_no_result():
    with pytest.raises(ModelBroken, match="answered 1 of 2 requests"):
        isolate(lambda batch, slots: [Result(id="r0")], requests("One.", "Two."), 4)


def test_nothing_asked_nothing_called():
    call = Calls()
    assert isolate(call, [], 4) == []
    assert call.seen == []


def test_a_hang_ends_with_the_time_limit_and_costs_one_request():
    def call(batch, slots):
        if any("HANG" in (request.text or "") for request in batch):
            time.sleep(5)
        return [Result(id=request.id) for request in batch]

    outcomes = isolate(with_timeout(call, 0.2), requests("Fine.", "HANG", "Fine."), 4)
    assert errors(outcomes) == [None, "TimedOut", None]
    assert outcomes[1].made.message == "no answer within 0.2 s for 1 requests"


def test_an_error_in_the_thread_is_raised_here():
    def call(batch, slots):
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        with_timeout(call, 5)([], 4)
    with pytest.raises(TimedOut, match=r"no answer within 0\.05 s for 0 requests"):
        with_timeout(lambda batch, slots: time.sleep(1), 0.05)([], 4)


def test_the_ladder_halves_down_to_one():
    assert [slot_ladder(16), slot_ladder(6), slot_ladder(1)] == [(16, 8, 4, 2, 1), (6, 3, 1), (1,)]
