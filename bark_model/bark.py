"""The library's front door: a loaded checkpoint that turns requests into tokens and audio, and each stage alone."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bark_model.axes import FineCodes, Waveform
from bark_model.checkpoint import Checkpoint
from bark_model.config import BarkConfig
from bark_model.engine_stats import Compiled, Usage
from bark_model.engines import ENGINES
from bark_model.engines.slots import Hardware, NonFinite
from bark_model.networks import DTYPES, Network, load_network
from bark_model.outcomes import STAGES, Failure, Request, Result, Stage
from bark_model.replicated import Replicas, keep_compiled
from bark_model.semantic import NON_FINITE, STOP_REASONS
from bark_model.settings import SettingError
from bark_model.text import TextError, load_tokenizer, text_ids
from bark_model.tokens import TokenError, check_audio, check_tokens
from bark_model.voices import Voice, load_voice

MAX_SLOTS = 4096


class Bark:
    """A checkpoint on the local devices.

    `slots` rows run together on each device. Slots, dtype and backend are the compiled shape: results are equal,
    bit for bit, wherever those are, whatever the batch, its order or the number of devices.
    """

    def __init__(self, checkpoint: Checkpoint, networks: dict[str, Network], hardware: Hardware):
        self.checkpoint, self.networks, self.hardware = checkpoint, networks, hardware
        self.engines: dict[Stage, Any] = {
            stage: engine(networks[part], checkpoint.config, hardware) for stage, (part, engine) in ENGINES.items()
        }

    @classmethod
    def load(
        cls,
        checkpoint: str | Checkpoint,
        *,
        slots: int = 16,
        dtype: str = "float32",
        devices: Sequence[Any] | None = None,
        compilation_cache: str | Path | None = None,
        low_memory: bool = False,
    ) -> "Bark":
        """Loads a checkpoint (see `checkpoint.resolve` for names) onto `devices` (all local ones by default).

        dtype: float32, bfloat16 or float16, of the three transformers; the codec computes in float32.
        compilation_cache: a folder where compiled programs are kept, so that a second start compiles nothing.
        low_memory: one network on the devices at a time, the others wait in host memory; each stage of a call then
        begins with a copy. Results are the same.
        """
        if dtype not in DTYPES:
            raise SettingError(f"dtype is {dtype!r}, must be one of {', '.join(DTYPES)}")
        if compilation_cache is not None:
            keep_compiled(compilation_cache)
        replicas = Replicas(devices, dtype=DTYPES[dtype])
        opened = Checkpoint.open(checkpoint) if isinstance(checkpoint, str) else checkpoint
        networks = {
            part: load_network(opened, part, DTYPES[dtype], replicas.copy_to_all, resident=not low_memory)
            for part, _ in ENGINES.values()
        }
        return cls(opened, networks, _hardware(replicas, slots, DTYPES[dtype]))

    def with_slots(self, slots: int) -> "Bark":
        """The same weights, not copied, at another compiled shape."""
        return Bark(self.checkpoint, self.networks, _hardware(self.hardware.replicas, slots, self.hardware.dtype))

    def warm_up(self, *, start: Stage = "text", to: Stage = "audio") -> list[Compiled]:
        """Compiles everything that requests from `start` to the stage `to` run, so that none of them waits for it.

        Encoding is left out. Returns all programs of these stages with their shapes and seconds, in running order.
        """
        due = STAGES[STAGES.index(start) + 1 : STAGES.index(to) + 1]
        return [compiled for stage in due for compiled in self.engines[stage].warm_up()]

    @property
    def usage(self) -> dict[Stage, Usage]:
        """What each stage took, and how busy its slots were, since this model was made."""
        return {stage: engine.meter.usage for stage, engine in self.engines.items()}

    @property
    def config(self) -> BarkConfig:
        return self.checkpoint.config

    @property
    def sample_rate(self) -> int:
        return self.config.generation.sample_rate

    @cached_property
    def tokenizer(self):
        return load_tokenizer(self.checkpoint.folder)

    def voice(self, name: str) -> Voice:
        """A preset of this checkpoint by name, or a voice from the path of an `.npz`."""
        return load_voice(name, self.checkpoint.folder, self.config.generation)

    def synthesize(self, requests: Sequence[Request], *, to: Stage = "audio") -> list[Result | Failure]:
        """Runs every request from what it holds up to the stage `to`; outcomes come in the order of the requests.

        A row that cannot be made becomes a Failure and costs nothing else. What concerns no single row (out of
        memory, a bug) is raised.
        """
        if to not in STAGES[1:]:
            raise SettingError(f"to is {to!r}, must be one of {', '.join(STAGES[1:])}")
        outcomes: list[Result | Failure] = [self._admit(request) for request in requests]
        for stage in STAGES[1 : STAGES.index(to) + 1]:
            due = [
                i
                for i, request in enumerate(requests)
                if isinstance(outcomes[i], Result) and STAGES.index(request.start) < STAGES.index(stage)
            ]
            if due:
                made = getattr(self, f"_{stage}")([requests[i] for i in due], [outcomes[i] for i in due])
                for i, outcome in zip(due, made, strict=True):
                    outcomes[i] = outcome
        return outcomes

    def encode(self, audio: Sequence[Waveform]) -> list[FineCodes]:
        """EnCodec: float32 [L] at `sample_rate` -> codes [8, T] each; coarse codes are their first two rows."""
        for waveform in audio:
            check_audio(waveform)
        return self.engines["audio"].encode(audio)

    def _admit(self, request: Request) -> Result | Failure:
        """Checks what a request holds before any device sees it: JAX would clamp bad ids without a word."""
        try:
            if request.start == "text":
                self._ids(request)
            return replace(Result(id=request.id), **check_tokens(request, self.config))
        except TextError as error:
            return Failure(id=request.id, stage="text", error=error.kind, message=str(error))
        except TokenError as error:
            return Failure(id=request.id, stage=error.stage, error="BadTokens", message=str(error))

    def _ids(self, request: Request):
        if request.text is None:
            raise TextError("EmptyText", "the request has neither text nor tokens: nothing to speak")
        limit, vocab_size = self.config.generation.max_input_semantic_length, self.config.text_vocab_size
        return text_ids(request.text, self.tokenizer, max_tokens=limit, vocab_size=vocab_size)

    def _semantic(self, requests: list[Request], results: list[Result]) -> list[Result | Failure]:
        rows = self.engines["semantic"].run(requests, [self._ids(request) for request in requests])
        outcomes: list[Result | Failure] = []
        for result, (tokens, stop) in zip(results, rows, strict=True):
            if stop == NON_FINITE:
                outcomes.append(_non_finite(result.id, "semantic"))
            elif not len(tokens):
                message = f"the model ended ({STOP_REASONS[stop]}) before the first token: try another seed or text"
                outcomes.append(Failure(id=result.id, stage="semantic", error="NoSpeech", message=message))
            else:
                outcomes.append(replace(result, semantic=tokens, stop_reason=STOP_REASONS[stop]))
        return outcomes

    def _coarse(self, requests: list[Request], results: list[Result]) -> list[Result | Failure]:
        rows = self.engines["coarse"].run(requests, [result.semantic for result in results])
        return _collect("coarse", results, rows)

    def _fine(self, requests: list[Request], results: list[Result]) -> list[Result | Failure]:
        return _collect("fine", results, self.engines["fine"].run(requests, [result.coarse for result in results]))

    def _audio(self, requests: list[Request], results: list[Result]) -> list[Result | Failure]:
        return _collect("audio", results, self.engines["audio"].decode([result.fine for result in results]))


def _hardware(replicas: Replicas, slots: int, dtype: Any) -> Hardware:
    if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= MAX_SLOTS:
        raise SettingError(f"slots is {slots!r}, must be 1 to {MAX_SLOTS} rows a device")
    return Hardware(replicas, slots, dtype)


def _non_finite(request_id: str, stage: Stage) -> Failure:
    message = f"the {stage} network gave NaN or infinity: try dtype float32, or check the weights"
    return Failure(id=request_id, stage=stage, error="NonFinite", message=message)


def _collect(stage: Stage, results: list[Result], rows: Sequence[np.ndarray | NonFinite]) -> list[Result | Failure]:
    return [
        _non_finite(result.id, stage) if isinstance(row, NonFinite) else replace(result, **{stage: row})
        for result, row in zip(results, rows, strict=True)
    ]
