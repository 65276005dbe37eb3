"""What goes into the model and what comes out: a request a clip, and a result or a failure for each."""

from dataclasses import dataclass, field
from typing import Literal

from bark_model.axes import CoarseCodes, FineCodes, SemanticTokens, Waveform
from bark_model.settings import Sampling
from bark_model.voices import Voice

Stage = Literal["text", "semantic", "coarse", "fine", "audio"]
STAGES: tuple[Stage, ...] = ("text", "semantic", "coarse", "fine", "audio")
StopReason = Literal["eos", "min_eos_p", "max_duration", "cap"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One clip to make. It starts from the latest stage whose tokens are given: fine, coarse, semantic, then text.

    `id`, `seed` and `attempt` make the PRNG keys, and nothing else does: the same three give the same tokens in
    any batch, on any number of devices.
    """

    id: str
    text: str | None = None
    semantic: SemanticTokens | None = None
    coarse: CoarseCodes | None = None
    fine: FineCodes | None = None
    voice: Voice | None = None
    seed: int = 0
    attempt: int = 0
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def start(self) -> Stage:
        """The stage whose content is given."""
        for stage in ("fine", "coarse", "semantic"):
            if getattr(self, stage) is not None:
                return stage
        return "text"


@dataclass(frozen=True, kw_only=True)
class Result:
    """A clip that was made. Stages that were not asked for are None; those that were given are handed through."""

    id: str
    semantic: SemanticTokens | None = None
    coarse: CoarseCodes | None = None
    fine: FineCodes | None = None
    audio: Waveform | None = None
    stop_reason: StopReason | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A clip that was not made: the stage that refused it, a short error name, and one line for people."""

    id: str
    stage: Stage
    error: str
    message: str
