"""A row's tokens and audio are its own: alone, at any place of any batch, on one or four devices, bit for bit."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from bark_model import Bark, Failure, FineSampling, Request, Result, Sampling, SemanticSampling
from bark_model.engines.slots import Hardware
from tests.bark_model.conftest import SLOTS


def mixed_requests(bark) -> list[Request]:
    """Rows that share nothing: text, length, voice, seed and sampling all differ."""
    voices = [None, bark.voice("random_0"), bark.voice("random_1")]
    samplings = [
        Sampling(),
        Sampling.greedy(),
        Sampling.greedy("transformers"),
        Sampling(compat="transformers", semantic=SemanticSampling(temperature=1.0, top_k=20, top_p=0.9)),
        Sampling(semantic=SemanticSampling(top_k=10, max_duration_s=0.5), fine=FineSampling(temperature=0.9)),
    ]
    return [
        Request(
            id=f"row {i}",
            text=f"{'word ' * (i % 5)}number {i}",
            voice=voices[i % 3],
            seed=i % 4,
            sampling=samplings[i % 5],
        )
        for i in range(11)
    ]


def same(one: Result | Failure, other: Result | Failure) -> bool:
    if isinstance(one, Failure) or isinstance(other, Failure):
        return one == other
    arrays = ("semantic", "coarse", "fine", "audio")
    return one.stop_reason == other.stop_reason and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


@pytest.fixture(scope="module")
def batch(bark):
    requests = mixed_requests(bark)
    outcomes = bark.synthesize(requests)
    assert sum(isinstance(outcome, Result) for outcome in outcomes) >= 8, outcomes
    return requests, outcomes


def test_alone(bark, batch):
    for request, outcome in zip(*batch, strict=True):
        [alone] = bark.synthesize([request])
        assert same(alone, outcome), request.id


def test_any_order(bark, batch):
    requests, outcomes = batch
    order = np.random.default_rng(1).permutation(len(requests))
    shuffled = bark.synthesize([requests[i] for i in order])
    for place, i in enumerate(order):
        assert same(shuffled[place], outcomes[i]), requests[i].id


def test_four_devices(bark, batch):
    requests, outcomes = batch
    four = Bark.load(bark.checkpoint, slots=SLOTS, devices=jax.local_devices())
    assert four.hardware.replicas.count == 4
    for request, outcome in zip(requests, four.synthesize(requests), strict=True):
        assert same(outcome, outcomes[requests.index(request)]), request.id


def test_rows_that_a_device_takes_together(bark, monkeypatch):
    """As accelerators do it: packs of prompts, windows and clips, of which some places are nobody's."""
    monkeypatch.setattr(Hardware, "batch_rows", 3)
    packed = Bark.load(bark.checkpoint, slots=SLOTS, devices=jax.local_devices())
    requests = mixed_requests(bark)
    outcomes = packed.synthesize(requests)
    assert sum(isinstance(outcome, Result) for outcome in outcomes) >= 8, outcomes
    for request, outcome in zip(requests[::3], outcomes[::3], strict=True):
        [alone] = packed.synthesize([request])
        assert same(alone, outcome), request.id


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_rows_are_their_own_too(dtype, bark):
    """The whole chain in 16 bits: audio comes out, and neighbours still change nothing."""
    half = Bark.load(bark.checkpoint, slots=2, dtype=dtype, devices=jax.local_devices()[:1])
    requests = mixed_requests(bark)[:5]
    outcomes = half.synthesize(requests)
    for request, outcome in zip(requests, outcomes, strict=True):
        [alone] = half.synthesize([request])
        assert same(alone, outcome), request.id
    made = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    assert len(made) >= 3
    assert all(result.audio.dtype == np.float32 and np.isfinite(result.audio).all() for result in made)


def test_seed_id_and_attempt_change_a_sampled_row(bark):
    base = Request(id="a", text="Hello there, how are you?", semantic=None)
    variants = [
        base,
        replace(base, seed=1),
        replace(base, id="b"),
        replace(base, attempt=1),
        replace(base, text=base.text),
    ]
    outcomes = bark.synthesize(variants, to="semantic")
    assert same(outcomes[0], outcomes[4])
    for other in outcomes[1:4]:
        assert not same(outcomes[0], other)


def test_every_stage_alone_continues_from_stored_tokens(bark, batch):
    """Any stage re-run from stored tokens gives the rest of the chain, unchanged."""
    for request, outcome in zip(*batch, strict=True):
        if isinstance(outcome, Failure):
            continue
        stored = replace(request, text=None)
        from_semantic, from_coarse, from_fine = bark.synthesize(
            [
                replace(stored, semantic=outcome.semantic),
                replace(stored, coarse=outcome.coarse),
                replace(stored, fine=outcome.fine),
            ]
        )
        assert np.array_equal(from_semantic.coarse, outcome.coarse)
        assert np.array_equal(from_coarse.fine, outcome.fine)
        assert np.array_equal(from_fine.audio, outcome.audio)


def test_stops_at_the_stage_asked_for(bark):
    [result] = bark.synthesize([Request(id="a", text="Hello there", sampling=Sampling.greedy())], to="coarse")
    assert result.coarse is not None
    assert result.fine is None
    assert result.audio is None


def test_bad_rows_cost_themselves_only(bark):
    """Failures name their stage; the good rows are what they are alone."""
    good = Request(id="good", text="Hello there", sampling=Sampling.greedy())
    bad = [
        Request(id="empty", text="  \n "),
        Request(id="long", text="x" * 65),
        Request(id="nothing"),
        Request(id="range", semantic=np.array([3, 100])),
        Request(id="shape", coarse=np.zeros((3, 4), int)),
        Request(id="negative", fine=np.full((8, 3), -1)),
        Request(id="float", semantic=np.zeros(3)),
    ]
    outcomes = bark.synthesize([*bad[:3], good, *bad[3:]])
    [alone] = bark.synthesize([good])
    assert same(outcomes[3], alone)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert [(f.stage, f.error, f.message) for f in failures] == [
        ("text", "EmptyText", "the text is empty: nothing to speak"),
        ("text", "TextTooLong", "the text has 65 tokens, one clip holds 64: split it at sentences"),
        ("text", "EmptyText", "the request has neither text nor tokens: nothing to speak"),
        ("semantic", "BadTokens", "semantic token 100 is out of range, must be 0 to 99"),
        ("coarse", "BadTokens", "coarse tokens have shape (3, 4), must be (2, frames)"),
        ("fine", "BadTokens", "fine token -1 is out of range, must be 0 to 63"),
        ("semantic", "BadTokens", "semantic tokens have dtype float64, must be integers"),
    ]


@pytest.mark.parametrize("part", ["semantic", "coarse", "fine"])
def test_a_row_that_goes_non_finite_is_alone_with_it(bark, part):
    """One class's embedding is NaN: the row that meets it fails as NonFinite, the other one keeps every bit.

    The class is one that the stage reads and never draws: a text id, a semantic token, a code of the first codebook.
    """
    table, poisoned_class = {
        "semantic": ("token_embedding.embedding", (bark.config.generation.text_encoding_offset,)),  # the byte "!"
        "coarse": ("token_embedding.embedding", (7,)),
        "fine": ("code_embeddings", (0, 9)),
    }[part]
    network = bark.networks[part]
    parameters = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.at[:, *poisoned_class].set(np.nan) if is_table(path, table) else leaf,
        network.parameters,
    )
    poisoned = Bark(bark.checkpoint, bark.networks | {part: replace(network, parameters=parameters)}, bark.hardware)
    sampling = Sampling.greedy()
    if part == "semantic":
        good, bad = (Request(id=t, text=t, sampling=sampling) for t in ("Hello there", "Hello there!"))
    elif part == "coarse":
        good, bad = (Request(id=str(t), semantic=np.full(20, t), sampling=sampling) for t in (8, 7))
    else:
        good, bad = (Request(id=str(t), coarse=np.full((2, 20), t), sampling=sampling) for t in (8, 9))
    failed, kept = poisoned.synthesize([bad, good], to=part)
    assert (failed.error, failed.stage) == ("NonFinite", part)
    assert failed.message == f"the {part} network gave NaN or infinity: try dtype float32, or check the weights"
    [clean] = bark.synthesize([good], to=part)
    assert np.array_equal(getattr(kept, part), getattr(clean, part))


def is_table(path, name: str) -> bool:
    return ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path).startswith(name)
