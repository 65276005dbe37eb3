"""The one door to bark_model: checkpoints and voices for the launcher (no jax), the loaded model for workers."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from bark_model.axes import FineCodes, Waveform
from bark_model.checkpoint import Checkpoint
from bark_model.engine_stats import Compiled, Usage
from bark_model.outcomes import Failure, Request, Result, Stage
from pipeline.errors import UsageError


class Model(Protocol):
    """What the pipeline asks of a loaded model."""

    @property
    def checkpoint(self) -> Checkpoint:
        """What was loaded, with its sha256."""
        ...

    @property
    def hardware(self) -> Any:
        """What it runs on: `replicas.devices` are jax's."""
        ...

    @property
    def usage(self) -> Mapping[Stage, Usage]:
        """Device time and slot-steps of each stage since the model was loaded."""
        ...

    def warm_up(self, *, start: Stage, to: Stage) -> Sequence[Compiled]:
        """Compiles every program of the stages after `start` up to `to`, and runs none of them."""
        ...

    def synthesize(self, requests: Sequence[Request], *, to: Stage) -> Sequence[Result | Failure]:
        """An outcome a request, in order; raises for what is not about one request."""
        ...

    def encode(self, audio: Sequence[Waveform]) -> Sequence[FineCodes]:
        """The codes [8, T] of waveforms at the checkpoint's sample rate."""
        ...

    def with_slots(self, slots: int) -> "Model":
        """The same weights, not copied, compiled for another number of rows a device; its usage starts at nothing."""
        ...


@lru_cache(maxsize=4)
def open_checkpoint(name: str) -> Checkpoint:
    """The checkpoint's folder, constants and tokenizer, without its weights."""
    return Checkpoint.open(name)


def load_model(
    checkpoint: str,
    *,
    slots: int,
    dtype: str,
    sha256: str | None = None,
    compilation_cache: str | None = None,
    low_memory: bool = False,
) -> Model:
    """The model on this process's devices. UsageError when its weights are not those the run was planned with."""
    from bark_model.bark import Bark  # imports jax: in workers only

    model = Bark.load(checkpoint, slots=slots, dtype=dtype, compilation_cache=compilation_cache, low_memory=low_memory)
    found = model.checkpoint.sha256
    if sha256 is not None and sha256 != found:
        raise UsageError(
            f"checkpoint {checkpoint!r} has sha256 {found[:12]}, the run was planned with {sha256[:12]}: "
            "use the same weights on every worker"
        )
    return model


def device_of(model: Model) -> str:
    """Platform and number of the devices that a model runs on, such as `gpu x 2`."""
    devices = model.hardware.replicas.devices
    return f"{devices[0].platform} x {len(devices)}"


def random_weights_note(checkpoint: str) -> str | None:
    """What users of a checkpoint that nobody trained are told, wherever it is used."""
    if not open_checkpoint(checkpoint).has_random_weights:
        return None
    return f"note: checkpoint {checkpoint!r} has random weights, its audio is noise; trained ones are such as suno/bark"
