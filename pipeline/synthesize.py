"""Bark as a model handler for Beam's RunInference. docs/model_handler.md shows it in a pipeline of your own."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from bark_model.engine_stats import Compiled, Usage
from bark_model.outcomes import Failure, Request, Result, Stage
from pipeline.counters import count
from pipeline.devices import add, since, slot_steps
from pipeline.isolation import (
    AnyRequest,
    EncodeRequest,
    Outcome,
    is_out_of_memory,
    isolate,
    slot_ladder,
    with_timeout,
)
from pipeline.model import Model, device_of, load_model
from pipeline.progress import report
from pipeline.units import Unit

log = logging.getLogger(__name__)


class SharedModel:
    """The one model of a process. Runners may call from several threads; a device takes one call at a time."""

    def __init__(self, model: Model, slots: int):
        self.lock = threading.Lock()
        self._slots, self._at_slots = slots, {slots: model}
        self._used: dict[Stage, Usage] = {}

    def at_slots(self, slots: int) -> Model:
        """The model compiled for a number of slots; smaller ones are made when memory ran out, and kept."""
        if slots not in self._at_slots:
            self._at_slots[slots] = self._at_slots[max(self._at_slots)].with_slots(slots)
        return self._at_slots[slots]

    def warm_up(self, *, start: Stage, to: Stage) -> Sequence[Compiled]:
        """Compiles what the stages after `start` need; where that exhausts memory, at the next fewer slots, to which
        the batches will fall back, too."""
        for slots in slot_ladder(self._slots):
            try:
                return self.at_slots(slots).warm_up(start=start, to=to)
            except Exception as error:
                if not is_out_of_memory(error) or slots == 1:
                    raise
        raise AssertionError(self._slots)

    def newly_used(self) -> dict[Stage, Usage]:
        """What each stage used of the devices since the last look."""
        before, self._used = self._used, add(model.usage for model in self._at_slots.values())
        return since(self._used, before)


class BarkModelHandler(ModelHandler[AnyRequest, Outcome, SharedModel]):
    """Requests, or recordings to encode -> outcomes, one each and in order. Loaded once a process, shared by threads.

    `start` is what requests hold at least, `to` the last stage to run: what lies between is compiled when the model
    is loaded (nothing for recordings, whose start is audio). `slots` rows are decoded at once on each device. No
    request can fail its batch: see isolation.py. Give it whole batches, many times `slots`, so that no slot idles.
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        slots: int = 16,
        dtype: str = "float32",
        start: Stage = "text",
        to: Stage = "audio",
        timeout_s: float = 14400,
        sha256: str | None = None,
        compilation_cache: str | None = None,
        low_memory: bool = False,
        min_batch_size: int | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__(min_batch_size=min_batch_size, max_batch_size=max_batch_size)
        self._checkpoint, self._slots, self._dtype = checkpoint, slots, dtype
        self._start: Stage = start
        self._to: Stage = to
        self._timeout_s, self._sha256 = timeout_s, sha256
        self._compilation_cache, self._low_memory = compilation_cache, low_memory

    def load_model(self) -> SharedModel:
        began = time.monotonic()
        model = load_model(
            self._checkpoint,
            slots=self._slots,
            dtype=self._dtype,
            sha256=self._sha256,
            compilation_cache=self._compilation_cache,
            low_memory=self._low_memory,
        )
        shared = SharedModel(model, self._slots)
        compiled = shared.warm_up(start=self._start, to=self._to)
        for one in compiled:
            log.info("compiled %s %s in %.2f s", one.name, one.shape, one.seconds)
        programs = {f"{one.name} {one.shape}": round(one.seconds, 3) for one in compiled}
        device, note = device_of(model), model.hardware.note
        report(device=device, note=note, compiled=programs, start_up_s=time.monotonic() - began)
        return shared

    def run_inference(
        self, batch: Sequence[AnyRequest], model: SharedModel, inference_args: Mapping[str, Any] | None = None
    ) -> list[Outcome]:
        def call(requests: Sequence[AnyRequest], slots: int) -> Sequence[Result | Failure]:
            return _run(model.at_slots(slots), requests, self._to)

        with model.lock:
            outcomes = isolate(with_timeout(call, self._timeout_s), batch, self._slots)
            _report_usage(model.newly_used())
        return outcomes

    def get_num_bytes(self, batch: Sequence[AnyRequest]) -> int:
        """Bytes of text and tokens: the inherited method would pickle every batch to learn it."""
        return sum(_request_bytes(request) for request in batch)

    def get_metrics_namespace(self) -> str:
        return "bark_beam"


def _run(model: Model, requests: Sequence[AnyRequest], to: Stage) -> Sequence[Result | Failure]:
    """Synthesises requests, or encodes recordings: a batch holds one kind."""
    recordings = [one for one in requests if isinstance(one, EncodeRequest)]
    if not recordings:
        return model.synthesize([one for one in requests if isinstance(one, Request)], to=to)
    codes = model.encode([one.audio for one in recordings])
    books = model.checkpoint.config.generation.n_coarse_codebooks
    return [Result(id=one.id, coarse=fine[:books], fine=fine) for one, fine in zip(recordings, codes, strict=True)]


def _report_usage(usage: Mapping[Stage, Usage]) -> None:
    """Tells the runner, in counters, and the launcher what a batch took of the devices."""
    for stage, one in usage.items():
        count(f"{stage}_device_ms", round(1000 * one.seconds))
    for name, number in slot_steps(usage).items():
        count(name, number)
    report(usage={stage: [one.seconds, one.busy, one.slots] for stage, one in usage.items()})


def _request_bytes(request: AnyRequest) -> int:
    if isinstance(request, EncodeRequest):
        return request.audio.nbytes
    arrays = (request.semantic, request.coarse, request.fine)
    return len(request.text or "") + sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True, kw_only=True)
class UnitRequests:
    """A unit and the requests of all its chunks: one batch."""

    unit: Unit
    requests: tuple[AnyRequest, ...]

    def __len__(self) -> int:
        return len(self.requests)


@dataclass(frozen=True, kw_only=True)
class UnitOutcomes:
    """A unit and the outcome of each of its chunks, in order."""

    unit: Unit
    outcomes: tuple[Outcome, ...]


class UnitModelHandler(ModelHandler[UnitRequests, UnitOutcomes, SharedModel]):
    """A whole unit as one batch, so that it leaves RunInference as one element and its audio is never shuffled."""

    def __init__(self, handler: BarkModelHandler):
        super().__init__()
        self._handler = handler

    def load_model(self) -> SharedModel:
        return self._handler.load_model()

    def run_inference(
        self, batch: UnitRequests, model: SharedModel, inference_args: Mapping[str, Any] | None = None
    ) -> list[UnitOutcomes]:
        outcomes = self._handler.run_inference(batch.requests, model, inference_args)
        return [UnitOutcomes(unit=batch.unit, outcomes=tuple(outcomes))]

    def get_num_bytes(self, batch: UnitRequests) -> int:
        return self._handler.get_num_bytes(batch.requests)

    def get_metrics_namespace(self) -> str:
        return self._handler.get_metrics_namespace()
