"""A Bark without jax: tokens and audio from a digest of the request, and faults on demand by words in the text.

POISON raises, OOM<n> raises out of memory above n slots, SLOW takes a while, NOSPEECH and NAN fail alone, KILL kills
the process with SIGKILL the first time (a file beside FAKE_BARK_NOTES lets the next attempt go on). Loading fails
with FAKE_BARK_LOAD_ERROR as its message, warming up as FAKE_BARK_WARM_UP asks.
It stands in for `bark_model.bark`, in this process through `sys.modules` and in child processes through
`fake_site/sitecustomize.py` on PYTHONPATH; nothing in the product knows of it.
"""

import hashlib
import os
import re
import signal
import time
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from bark_model.checkpoint import Checkpoint
from bark_model.engine_stats import Compiled, Usage
from bark_model.outcomes import Failure, Request, Result

STAGES = ("text", "semantic", "coarse", "fine", "audio")


class Bark:
    """The door's Bark: `load`, `warm_up`, `synthesize`, `encode`, `with_slots`, `usage`, `hardware`.

    Its slots run requests in rows of that many, a step a character and stage, a millisecond a step.
    """

    def __init__(self, checkpoint: Checkpoint, slots: int, dtype: str):
        self.checkpoint, self.slots, self.dtype = checkpoint, slots, dtype
        replicas = SimpleNamespace(devices=[SimpleNamespace(platform="fake")] * 2)
        self.hardware = SimpleNamespace(replicas=replicas, note=os.environ.get("FAKE_BARK_NOTE", ""))
        self.usage = {stage: Usage() for stage in STAGES[1:]}

    @classmethod
    def load(
        cls,
        checkpoint: str,
        *,
        slots: int = 16,
        dtype: str = "float32",
        devices=None,
        compilation_cache=None,
        low_memory: bool = False,
    ) -> "Bark":
        if "FAKE_BARK_LOAD_ERROR" in os.environ:
            raise RuntimeError(os.environ["FAKE_BARK_LOAD_ERROR"])
        note("load", *(["low_memory"] if low_memory else []))
        return cls(Checkpoint.open(checkpoint), slots, dtype)

    def warm_up(self, *, start: str = "text", to: str = "audio") -> list[Compiled]:
        misbehave(os.environ.get("FAKE_BARK_WARM_UP", ""), self.slots)
        due = STAGES[STAGES.index(start) + 1 : STAGES.index(to) + 1]
        note("warm_up", str(self.slots), *due)
        return [Compiled(f"{stage} step", f"[{self.slots}]", 1.5) for stage in due]

    def _use(self, stages: Sequence[str], *lengths: int) -> None:
        """Adds what rows of these lengths use, one batch of rows after the other."""
        batches = [lengths[first : first + self.slots] for first in range(0, len(lengths), self.slots)]
        for stage in stages:
            before = self.usage[stage]
            steps = sum(max(batch) for batch in batches)
            self.usage[stage] = Usage(
                before.seconds + steps / 1000, before.busy + sum(lengths), before.slots + steps * self.slots
            )

    def with_slots(self, slots: int) -> "Bark":
        return Bark(self.checkpoint, slots, self.dtype)

    def synthesize(self, requests: Sequence[Request], *, to: str = "audio") -> list[Result | Failure]:
        for request in requests:
            misbehave(request.text or "", self.slots)
        note("synthesize", *[request.id for request in requests])
        self._use(STAGES[1 : STAGES.index(to) + 1], *(len(request.text or " ") for request in requests))
        return [self._one(request, STAGES.index(to)) for request in requests]

    def _one(self, request: Request, to: int) -> Result | Failure:
        text = request.text or ""
        if "NOSPEECH" in text:
            return Failure(id=request.id, stage="semantic", error="NoSpeech", message="no semantic token was drawn")
        if "NAN" in text:
            return Failure(id=request.id, stage="fine", error="NonFinite", message="the fine logits are not finite")
        start = STAGES.index(request.start)
        draw = generator(request)
        semantic = request.semantic
        if semantic is None and start < 1 <= to:
            semantic = draw.integers(0, 100, 5 + len(text) // 2).astype(np.int32)
        frames = 1 if semantic is None else max(1, round(len(semantic) * 75 / 49.9))
        coarse = request.coarse
        if coarse is None and start < 2 <= to:
            coarse = draw.integers(0, 16, (2, frames)).astype(np.int32)
        fine = request.fine
        if fine is None and start < 3 <= to:
            fine = np.concatenate([coarse, draw.integers(0, 16, (6, coarse.shape[1]))]).astype(np.int32)
        audio = None
        if to >= 4:
            audio = (0.1 * np.sin(np.cumsum(np.repeat(fine[0] + 1.0, 320)) * 0.01)).astype(np.float32)
        reason = "eos" if start < 1 else None
        return Result(id=request.id, semantic=semantic, coarse=coarse, fine=fine, audio=audio, stop_reason=reason)

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.tile((np.arange(len(wave) // 320) % 16).astype(np.int32), (8, 1)) for wave in waveforms]


def generator(request: Request) -> np.random.Generator:
    """Random numbers from what Bark's keys come from, and from what its networks see."""
    voice = request.voice.sha256 if request.voice else ""
    tokens = [array.tobytes() for array in (request.semantic, request.coarse, request.fine) if array is not None]
    seen = (request.id, request.seed, request.attempt, request.text, voice, tokens, repr(request.sampling))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(seen).encode()).digest()[:8], "big"))


def misbehave(text: str, slots: int) -> None:
    """Raises, dawdles or dies as the words of a text ask."""
    if "POISON" in text:
        raise RuntimeError("the poison was swallowed")
    if (found := re.search(r"OOM(\d+)", text)) and slots > int(found[1]):
        raise RuntimeError(f"RESOURCE_EXHAUSTED: out of memory at {slots} slots")
    if "SLOW" in text:
        time.sleep(0.3)
    if "KILL" in text and once():
        os.kill(os.getpid(), signal.SIGKILL)


def once() -> bool:
    """Whether this is the first process to ask, by a marker file beside the notes."""
    try:
        with open(os.environ["FAKE_BARK_NOTES"] + ".killed", "x"):
            return True
    except FileExistsError:
        return False


def note(*words: str) -> None:
    """Appends a line to the file FAKE_BARK_NOTES, from which a test sees what was loaded and synthesised."""
    if "FAKE_BARK_NOTES" in os.environ:
        with open(os.environ["FAKE_BARK_NOTES"], "a", encoding="utf-8", errors="surrogateescape") as notes:
            notes.write(f"{os.getpid()} " + " ".join(words) + "\n")
