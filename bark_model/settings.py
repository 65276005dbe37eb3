"""How tokens are drawn: one frozen object a stage, refused at construction when a value makes no sense.

Temperature 0 is greedy (argmax). `None` switches a filter off. Nothing here imports jax: the launcher reads it too.
"""

from dataclasses import dataclass, field
from typing import Literal

Compat = Literal["suno", "transformers"]


class SettingError(ValueError):
    """A sampling or engine setting is out of its range; the message names the value, the limit and the remedy."""


def _check(name: str, value: float | None, *, low: float, high: float, remedy: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise SettingError(f"{name} is {value!r}, must be {low:g} to {high:g}: {remedy}")


def _check_filters(stage: str, temperature: float, top_k: int | None, top_p: float | None) -> None:
    _check(f"{stage}.temperature", temperature, low=0, high=100, remedy="0 is greedy, 0.7 is Bark's own")
    _check(f"{stage}.top_k", top_k, low=1, high=2**20, remedy="null keeps every class")
    if isinstance(top_k, float):
        raise SettingError(f"{stage}.top_k is {top_k!r}, must be a whole number: null keeps every class")
    _check(f"{stage}.top_p", top_p, low=1e-6, high=1, remedy="null keeps every class")


@dataclass(frozen=True, kw_only=True)
class SemanticSampling:
    """Text -> semantic tokens.

    `min_eos_p`: stop when the end token's probability reaches it, even if another token was drawn.
    `max_duration_s`: stop after the first token beyond this many seconds.
    """

    temperature: float = 0.7
    top_k: int | None = None
    top_p: float | None = None
    min_eos_p: float | None = 0.2
    max_duration_s: float | None = None

    def __post_init__(self):
        _check_filters("semantic", self.temperature, self.top_k, self.top_p)
        _check(
            "semantic.min_eos_p",
            self.min_eos_p,
            low=1e-6,
            high=1,
            remedy="null waits for the end token itself",
        )
        _check("semantic.max_duration_s", self.max_duration_s, low=0, high=3600, remedy="null sets no limit")


@dataclass(frozen=True, kw_only=True)
class CoarseSampling:
    """Semantic tokens -> the two coarse codebooks."""

    temperature: float = 0.7
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        _check_filters("coarse", self.temperature, self.top_k, self.top_p)


@dataclass(frozen=True, kw_only=True)
class FineSampling:
    """Coarse -> the other codebooks; Bark filters nothing here."""

    temperature: float = 0.5

    def __post_init__(self):
        _check_filters("fine", self.temperature, None, None)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling of all stages. `compat` names the implementation whose differences are followed:

    - suno: top_p, then top_k, on raw logits, then temperature; stop at P(end) >= min_eos_p after temperature
      and filters; odd coarse steps see the second codebook's classes only.
    - transformers: temperature, then top_k, then top_p; stop at P(end) > min_eos_p before temperature; odd
      coarse steps also see the classes behind the second codebook, folded back by remainder; a fine
      temperature of 1 means argmax.
    """

    compat: Compat = "suno"
    semantic: SemanticSampling = field(default_factory=SemanticSampling)
    coarse: CoarseSampling = field(default_factory=CoarseSampling)
    fine: FineSampling = field(default_factory=FineSampling)

    def __post_init__(self):
        if self.compat not in ("suno", "transformers"):
            raise SettingError(f"sampling.compat is {self.compat!r}, must be 'suno' or 'transformers'")

    @classmethod
    def greedy(cls, compat: Compat = "suno") -> "Sampling":
        """Argmax in every stage; the end token ends a clip only when it is the argmax."""
        return cls(
            compat=compat,
            semantic=SemanticSampling(temperature=0, min_eos_p=None),
            coarse=CoarseSampling(temperature=0),
            fine=FineSampling(temperature=0),
        )
