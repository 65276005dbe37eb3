"""Bark as a model handler for Beam's RunInference. docs/model_handler.md shows it in a pipeline of your own."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from bark_model.outcomes import Failure, Request, Result, Stage
from pipeline.isolation import AnyRequest, EncodeRequest, Outcome, isolate, with_timeout
from pipeline.model import Model, load_model
from pipeline.units import Unit


class SharedModel:
    """The one model of a process. Runners may call from several threads; a device takes one call at a time."""

    def __init__(self, model: Model, slots: int):
        self.lock = threading.Lock()
        self._at_slots = {slots: model}

    def at_slots(self, slots: int) -> Model:
        """The model compiled for a number of slots; smaller ones are made when memory ran out, and kept."""
        if slots not in self._at_slots:
            self._at_slots[slots] = self._at_slots[max(self._at_slots)].with_slots(slots)
        return self._at_slots[slots]


class BarkModelHandler(ModelHandler[AnyRequest, Outcome, SharedModel]):
    """Requests, or recordings to encode -> outcomes, one each and in order. Loaded once a process, shared by threads.

    `to` is the last stage to run; `slots` rows are decoded at once on each device. No request can fail its batch:
    see isolation.py. Give it whole batches, many times `slots`, so that no slot idles.
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        slots: int = 16,
        dtype: str = "float32",
        to: Stage = "audio",
        timeout_s: float = 14400,
        sha256: str | None = None,
        compilation_cache: str | None = None,
        min_batch_size: int | None = None,
        max_batch_size: int | None = None,
    ):
        super().__init__(min_batch_size=min_batch_size, max_batch_size=max_batch_size)
        self._checkpoint, self._slots, self._dtype = checkpoint, slots, dtype
        self._to: Stage = to
        self._timeout_s, self._sha256, self._compilation_cache = timeout_s, sha256, compilation_cache

    def load_model(self) -> SharedModel:
        model = load_model(
            self._checkpoint,
            slots=self._slots,
            dtype=self._dtype,
            sha256=self._sha256,
            compilation_cache=self._compilation_cache,
        )
        return SharedModel(model, self._slots)

    def run_inference(
        self, batch: Sequence[AnyRequest], model: SharedModel, inference_args: Mapping[str, Any] | None = None
    ) -> list[Outcome]:
        def call(requests: Sequence[AnyRequest], slots: int) -> Sequence[Result | Failure]:
            return _run(model.at_slots(slots), requests, self._to)

        with model.lock:
            return isolate(with_timeout(call, self._timeout_s), batch, self._slots)

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
