"""One bad request costs one request: bisection of a failing batch, a ladder of smaller shapes, a time limit.

The model answers typed failures for what it foresees. Here the rest is caught: whatever it raises for a whole batch.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from bark_model.axes import Waveform
from bark_model.outcomes import Failure, Request, Result, Stage
from pipeline.errors import excerpt


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one request, and the slot count that made it."""

    made: Result | Failure
    slots: int


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodeRequest:
    """A recording to encode into codes: float32 [L] at the checkpoint's sample rate."""

    id: str
    audio: Waveform
    start: ClassVar[Stage] = "audio"


AnyRequest: TypeAlias = Request | EncodeRequest
Call: TypeAlias = Callable[[Sequence[AnyRequest], int], Sequence[Result | Failure]]
"""The model at a slot count: an outcome a request, in order; raises for what is not about one row."""


class TimedOut(Exception):
    """The model did not answer within the limit."""


class OutOfMemory(Exception):
    """The device could not hold the batch at this shape."""


class ModelBroken(RuntimeError):
    """The model fails whatever it is given: the fault is not in the records, so none of them is blamed."""


def slot_ladder(slots: int) -> tuple[int, ...]:
    """The fixed shapes to fall back to when memory runs out: 16 -> (16, 8, 4, 2, 1)."""
    return tuple(slots >> shift for shift in range(slots.bit_length()))


def isolate(call: Call, requests: Sequence[AnyRequest], slots: int) -> list[Outcome]:
    """An outcome for every request, in order, whatever the model raises for some of them.

    A batch that raises is halved at the same compiled shape until the guilty request is alone; one that exhausts
    memory first goes down the ladder of slots. ModelBroken when nothing at all succeeds, not even a plain request.
    """
    outcomes = _isolate(call, requests, slot_ladder(slots))
    raised = [outcome.made for outcome in outcomes if isinstance(outcome.made, _Raised)]
    if raised and len(raised) == len(requests):
        _check_health(call, slots, raised[0])
    return [replace(outcome, made=_plain(outcome.made)) for outcome in outcomes]


@dataclass(frozen=True, kw_only=True)
class _Raised(Failure):
    """A failure that came as an exception."""


def _plain(made: Result | Failure) -> Result | Failure:
    if isinstance(made, _Raised):
        return Failure(id=made.id, stage=made.stage, error=made.error, message=made.message)
    return made


def _isolate(call: Call, requests: Sequence[AnyRequest], ladder: Sequence[int]) -> list[Outcome]:
    if not requests:
        return []
    try:
        made = call(requests, ladder[0])
    except Exception as error:
        if is_out_of_memory(error) and len(ladder) > 1:
            return _isolate(call, requests, ladder[1:])
        if len(requests) == 1:
            return [Outcome(made=_raised(requests[0], error), slots=ladder[0])]
        half = len(requests) // 2
        return _isolate(call, requests[:half], ladder) + _isolate(call, requests[half:], ladder)
    if [one.id for one in made] != [request.id for request in requests]:
        raise ModelBroken(f"the model answered {len(made)} of {len(requests)} requests, or in another order")
    return [Outcome(made=one, slots=ladder[0]) for one in made]


def _raised(request: AnyRequest, error: Exception) -> _Raised:
    name = "OutOfMemory" if is_out_of_memory(error) else type(error).__name__
    lines = str(error).strip().splitlines() or [""]
    return _Raised(id=request.id, stage=request.start, error=name, message=lines[0][:200])


def _check_health(call: Call, slots: int, failure: Failure) -> None:
    """Raises ModelBroken unless a plain request goes through where all others raised."""
    try:
        call([Request(id="health", text="Yes.")], slots)
    except Exception as error:
        reason = f"{failure.error}: {failure.message}"
        raise ModelBroken(f"the model fails on every request, also on a plain one ({excerpt(reason, 200)})") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether jax, numpy or Python ran out of memory; jax has no class for it, only a status in the text."""
    return isinstance(error, MemoryError | OutOfMemory) or "RESOURCE_EXHAUSTED" in str(error)


def with_timeout(call: Call, timeout_s: float) -> Call:
    """The same call, raising TimedOut after `timeout_s`. The stuck thread stays behind: Python cannot stop it."""

    def limited(requests: Sequence[AnyRequest], slots: int) -> Sequence[Result | Failure]:
        answers: queue.SimpleQueue = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put((call(requests, slots), None))
            except BaseException as error:  # handed to the waiting thread, which raises it
                answers.put((None, error))

        threading.Thread(target=work, daemon=True, name="bark-call").start()
        try:
            made, error = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise TimedOut(f"no answer within {timeout_s:g} s for {len(requests)} requests") from None
        if error is not None:
            raise error
        return made

    return limited
