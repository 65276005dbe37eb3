"""Warm-up compiles all that a run needs, usage counts slots that hold a row, low memory changes no bit."""

import jax
import numpy as np
import pytest

from bark_model import Bark, Request, Sampling
from bark_model.engine_stats import Usage

REQUESTS = [Request(id=text, text=text, sampling=Sampling.greedy()) for text in ("Hello there", "Yes", "One two three")]
STAGES = ("semantic", "coarse", "fine", "audio")


def compiled_names(bark: Bark, stage: str) -> list[str]:
    return [compiled.name for program in bark.engines[stage]._programs for compiled in program.compiled]


def test_warm_up_leaves_nothing_to_compile(bark):
    fresh = bark.with_slots(3)
    listed = fresh.warm_up()
    assert [one.name for one in listed] == [name for stage in STAGES for name in compiled_names(fresh, stage)]
    assert all(one.seconds > 0 for one in listed)
    assert {one.name: one.shape for one in listed} == {
        "semantic slots": "1",
        "semantic prefill": "1x3x2x256x16",
        "semantic decode, 32 steps": "1x3x2x256x16",
        "coarse slots": "1",
        "coarse prefill": "1x3x2x128x16",
        "coarse window, 12 steps": "1x3x2x128x16",
        "fine window": "1x1x8x64",
        "codec decode": "1x1x8x192",
    }
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
    fresh.synthesize(REQUESTS * 3)
    assert fresh.warm_up() == listed
    assert not [event for event in events if "backend_compile" in event]


@pytest.mark.parametrize(
    ("start", "to", "stages"), [("text", "semantic", 1), ("coarse", "audio", 2), ("fine", "fine", 0)]
)
def test_warm_up_compiles_the_stages_of_the_run_alone(bark, start, to, stages):
    fresh = bark.with_slots(2)
    fresh.warm_up(start=start, to=to)
    assert sum(bool(compiled_names(fresh, stage)) for stage in STAGES) == stages


def test_usage_counts_the_slots_that_hold_a_row(bark):
    """Three rows on two slots, each step counted by hand from the results."""
    fresh = bark.with_slots(2)
    assert fresh.usage == dict.fromkeys(STAGES, Usage())
    results = fresh.synthesize(REQUESTS)
    g, usage = bark.config.generation, fresh.usage
    drawn = [len(result.semantic) + (result.stop_reason == "eos") for result in results]
    assert usage["semantic"].busy == sum(drawn)
    assert sum(drawn) <= usage["semantic"].slots <= 2 * (max(drawn) + 32 + min(drawn) + 32)
    assert usage["coarse"].busy == sum(result.coarse.size for result in results)
    windows = [-(-result.coarse.size // g.sliding_window_len) for result in results]
    assert usage["coarse"].slots == 2 * 12 * max(max(windows), -(-sum(windows) // 2))
    frames = [result.coarse.shape[1] for result in results]
    assert usage["audio"].busy == sum(frames)
    assert usage["audio"].slots == 3 * 128
    assert all(usage[stage].seconds > 0 for stage in STAGES)
    before = fresh.usage["fine"]
    fresh.synthesize(REQUESTS[:1])
    assert (fresh.usage["fine"] - before).busy >= 1


def test_low_memory_changes_no_bit(folders):
    given = {"slots": 2, "dtype": "bfloat16", "devices": jax.local_devices()[:1]}
    usual, small = (Bark.load(str(folders["tiny"].folder), low_memory=low, **given) for low in (False, True))
    for one, other in zip(usual.synthesize(REQUESTS), small.synthesize(REQUESTS), strict=True):
        assert np.array_equal(one.fine, other.fine)
        assert np.array_equal(one.audio, other.audio)


def test_low_memory_leaves_nothing_on_the_devices(folders):
    small = Bark.load(str(folders["tiny"].folder), slots=2, devices=jax.local_devices()[:1], low_memory=True)
    host = sum(leaf.nbytes for part in small.networks.values() for leaf in jax.tree.leaves(part.parameters))
    with small.networks["coarse"].on_devices() as placed:
        leaves = jax.tree.leaves(placed)
        assert 0 < sum(leaf.nbytes for leaf in leaves) < host / 2
    assert all(leaf.is_deleted() for leaf in leaves)
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(small.networks["coarse"].parameters))
