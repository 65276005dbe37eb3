"""This project's side: unit costs of the network's programs, and the whole workload through `Bark`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bark_model import Bark, CoarseSampling, Failure, FineSampling, Request, Sampling, SemanticSampling
from bark_model import coarse as coarse_stage
from bark_model import semantic as semantic_stage
from bark_model.sampling import RowSampling
from benchmarks.workload import seconds

CODEC_FRAMES = 375
"""Five seconds of audio."""
COMPILATION = "/jax/core/compile/backend_compile_duration"
"""jax's own event for each program it compiles."""


def run(folder: str, lengths: list[int], dtype: str, rows: int) -> dict:
    """Every clip from text to audio in one call, after `warm_up`; lengths are forced and checked."""
    begin = time.perf_counter()
    bark = Bark.load(folder, slots=rows, dtype=dtype)
    loading = time.perf_counter() - begin
    compiled = bark.warm_up()
    late = _compilations()
    before = bark.usage
    begin = time.perf_counter()
    outcomes = bark.synthesize(requests(lengths, bark.config.generation.semantic_rate_hz))
    total = time.perf_counter() - begin
    results = _checked(outcomes, lengths)
    usage = {stage: now - before[stage] for stage, now in bark.usage.items()}
    return {
        "load_s": loading,
        "compile_s": sum(program.seconds for program in compiled),
        "programs": [(program.name, program.shape, program.seconds) for program in compiled],
        "late_compile_s": sum(late),
        "total_s": total,
        "stage_s": {stage: used.seconds for stage, used in usage.items()},
        "busy": {stage: used.busy / used.slots for stage, used in usage.items()},
        "audio_s": sum(len(result.audio) for result in results) / bark.sample_rate,
        "tokens": {"semantic": sum(lengths), "coarse": sum(result.coarse.size for result in results)},
        **_device(),
    }


def _compilations() -> list[float]:
    """A list that grows by the seconds of each program that jax compiles from now on."""
    taken: list[float] = []

    def note(event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILATION:
            taken.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    return taken


def _checked(outcomes: Sequence[Any], lengths: Sequence[int]) -> Sequence[Any]:
    """The results; raises RuntimeError when a clip failed or has another length than was forced."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(outcomes)} clips failed: {failures[0].message}")
    made = [len(outcome.semantic) for outcome in outcomes]
    if made != lengths:
        raise RuntimeError(f"clips of {made} semantic tokens instead of the {lengths} that were forced")
    return outcomes


def _device() -> dict:
    device = jax.local_devices()[0]
    return {"device": device.device_kind, "device_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use")}


def requests(lengths: Sequence[int], semantic_rate_hz: float) -> list[Request]:
    """Greedy clips that end after so many semantic tokens each."""
    return [
        Request(
            id=str(number),
            text=f"clip number {number}",
            sampling=Sampling(
                semantic=SemanticSampling(
                    temperature=0, min_eos_p=None, max_duration_s=(length - 0.5) / semantic_rate_hz
                ),
                coarse=CoarseSampling(temperature=0),
                fine=FineSampling(temperature=0),
            ),
        )
        for number, length in enumerate(lengths)
    ]


def units(folder: str, dtype: str, rows: list[int]) -> dict:
    """Seconds of each program's unit, by the number of slots in `rows`; a row's share where rows are many.

    semantic_prefill, coarse_prefill: a prompt of 257 and of 887 (for Bark); semantic_step_low and _high, coarse_step:
    a step of all slots, sampling included, a quarter and two thirds into the cache; fine: a row's forward; audio: a
    second of it.
    """
    bark = Bark.load(folder, slots=max(rows), dtype=dtype)
    few = bark.hardware.prefill_rows
    common = {
        "semantic_prefill": _prefill(bark, "semantic", few, bark.config.generation.semantic_prefill_length),
        "coarse_prefill": _prefill(bark, "coarse", few, bark.config.generation.coarse_prefill_length),
        "fine": _fine_forward(bark, min(2, max(rows))),
        "audio": _codec_second(bark),
    }
    measured = {}
    for slots in rows:
        measured[slots] = common | {
            "semantic_step_low": _semantic_step(bark, slots, 1 / 4),
            "semantic_step_high": _semantic_step(bark, slots, 2 / 3),
            "coarse_step": _coarse_step(bark, slots),
        }
    return {"units": measured, **_device()}


def _mapped(bark: Bark, part: str, function: Callable, *, donate: tuple[int, ...] = ()) -> Callable:
    """function(module, *arrays) on every device, with the part's weights."""
    network = bark.networks[part]
    program = bark.hardware.replicas.program(part, network.bind(function), donate=donate)
    return lambda *arrays: jax.block_until_ready(program(network.parameters, *arrays))


def _prefill(bark: Bark, part: str, rows: int, length: int) -> float:
    ids = bark.hardware.replicas.copy_to_all(np.ones((rows, length), np.int32))
    prefill = _mapped(bark, part, lambda m, i: m.prefill(m.token_embedding(i), jnp.full(rows, length), length))
    return seconds(lambda: prefill(ids)) / rows


def _fine_forward(bark: Bark, rows: int) -> float:
    g = bark.config.generation
    codes = np.ones((rows, g.n_fine_codebooks, g.max_fine_input_length), np.int32)
    placed = bark.hardware.replicas.copy_to_all(codes)
    forward = _mapped(bark, "fine", lambda m, c: m(c, jnp.int32(g.n_coarse_codebooks), g.codebook_size).argmax(-1))
    return seconds(lambda: forward(placed)) / rows


def _codec_second(bark: Bark) -> float:
    g, alone = bark.config.generation, bark.with_slots(1)
    codes = np.ones((g.n_fine_codebooks, CODEC_FRAMES), np.int32)
    request = Request(id="0", fine=codes)
    return seconds(lambda: alone.synthesize([request])) / (CODEC_FRAMES / g.coarse_rate_hz)


def _steps(state, step: Callable, num_steps: int) -> float:
    """Seconds of a decode step; the state is handed on, since its buffers are reused."""

    def once() -> None:
        nonlocal state
        state = step(state)

    return seconds(once, calls=3, enough_s=2) / num_steps


def _semantic_step(bark: Bark, slots: int, filled: float) -> float:
    g, hardware = bark.config.generation, bark.hardware
    count = int(filled * g.max_new_tokens)
    num_steps = g.max_new_tokens // 48

    def full(model) -> semantic_stage.SemanticState:
        del model
        empty = semantic_stage.empty_state(bark.config, slots, hardware.dtype)
        running = jnp.full(slots, semantic_stage.RUNNING, jnp.int32)
        return replace(empty, count=jnp.full(slots, count), limit=jnp.full(slots, 2**30), stop=running)

    step = _mapped(bark, "semantic", lambda m, s: semantic_stage.run_steps(m, s, g, num_steps)[0], donate=(1,))
    return _steps(_mapped(bark, "semantic", full)(), step, num_steps)


def _coarse_step(bark: Bark, slots: int) -> float:
    """Within a window whose prompt fills two thirds of the longest."""
    g, hardware = bark.config.generation, bark.hardware
    place = g.coarse_prefill_length * 2 // 3

    def full(model) -> coarse_stage.CoarseState:
        del model
        empty = coarse_stage.empty_state(bark.config, slots, hardware.dtype)
        return replace(empty, position=jnp.full(slots, place))

    def window(model, state):
        rows = coarse_stage.CoarseRows(num_done=jnp.zeros(slots, jnp.int32), sampling=RowSampling.empty(slots))
        return coarse_stage.run_window(model, replace(state, position=jnp.full(slots, place)), rows, bark.config)[0]

    step = _mapped(bark, "coarse", window, donate=(1,))
    return _steps(_mapped(bark, "coarse", full)(), step, g.sliding_window_len)
