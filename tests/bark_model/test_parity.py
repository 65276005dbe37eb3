"""Greedy tokens equal transformers', stage by stage and end to end; logits and audio as close as float32 allows.

Every choice's margin is kept. A choice closer than the measured logit error may differ; it and what depends on it are
counted as left out and must be under 1 in 10,000 of a shape's.
"""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from bark_model import Bark, Request, Result, Sampling
from bark_model.coarse import flatten_codes, unflatten_ids
from bark_model.networks import build, fill, read_parameters
from tests.bark_model.conftest import SHAPES
from tests.bark_model.reference import FineChoices, Reference

TEXTS = (
    "I",
    "Hello there, how are you?",
    "Was für ein schöner Tag!",
    "♪ la la [laughs]",
    "WOMAN: no, 42 times no",
    "x" * 64,  # the longest the tiny shapes hold, in bytes
    "¿Qué tal? 你好",
    "one two three four five six seven eight nine ten eleven",
)
CAPPED = {"unbiased": {"0", "1", "6"}}
"""The texts, by shape, whose reading comes to no end before the cap: without a voice (0, 6) and with one."""
GREEDY = Sampling.greedy("transformers")
MAX_LOGIT_ERROR = 5e-5
"""Largest difference of the two implementations' float32 logits; the tests below measure and print it."""


class Tally:
    """Compares choice by choice: equal, or excused by that choice's own margin; what comes after it is left out."""

    def __init__(self, max_fine_error: float = MAX_LOGIT_ERROR):
        self.compared = self.left_out = 0
        self.max_fine_error = max_fine_error

    def check(self, ours: np.ndarray, theirs: np.ndarray, margins: np.ndarray, where: str) -> None:
        """Choices [T] made one after the other; the shorter row ended where the longer one went on."""
        different = np.flatnonzero(ours[: len(theirs)] != theirs[: len(ours)])
        end = different[0] if len(different) else min(len(ours), len(theirs))
        if len(different) or len(ours) != len(theirs):
            _excuse(margins[end], MAX_LOGIT_ERROR, f"{where}: choice {end}")
        self.compared += int(end)
        self.left_out += max(len(ours), len(theirs)) - int(end)

    def check_fine(self, ours: np.ndarray, theirs: FineChoices, where: str) -> None:
        """Codes [K, T], of which a step makes many at once: none of them depends on another one of its own step."""
        assert ours.shape == theirs.codes.shape, where
        different = ours != theirs.codes
        first = theirs.steps[different].min(initial=theirs.steps.max())
        at_first = different & (theirs.steps == first)
        for codebook, frame in np.argwhere(at_first):
            place = f"{where}: codebook {codebook} frame {frame}"
            _excuse(theirs.margins[codebook, frame], self.max_fine_error, place)
        compared = (theirs.steps >= 0) & (theirs.steps <= first) & ~at_first  # step -1 was given
        self.compared += int(compared.sum())
        self.left_out += int((theirs.steps >= 0).sum() - compared.sum())


def _excuse(margin: float, max_error: float, where: str) -> None:
    assert margin <= max_error, f"{where} differs at a margin of {margin:.2e}"


def compare(bark: Bark, reference: Reference, request: Request, result: Result, tally: Tally) -> None:
    """Each stage is compared from our own tokens of the stage before, so that a near tie costs one stage only."""
    g = bark.config.generation
    if request.semantic is None:
        theirs = reference.semantic(bark._ids(request), request.voice)
        tally.check(result.semantic, np.array(theirs.tokens), np.array(theirs.margins), f"semantic {request.id}")
    choices = reference.coarse(result.semantic, request.voice)
    codes = unflatten_ids(np.array(choices.tokens), g)
    assert result.coarse.shape == codes.shape
    tally.check(result.coarse.T.ravel(), codes.T.ravel(), np.array(choices.margins), f"coarse {request.id}")
    fine = reference.fine(flatten_codes(result.coarse, g), request.voice)
    tally.check_fine(result.fine, fine, f"fine {request.id}")
    audio = reference.decode(result.fine)
    assert result.audio.shape == audio.shape
    assert np.abs(result.audio - audio).max() <= 1e-5 * np.abs(audio).max()


def requests_for(bark) -> list[Request]:
    """Ragged rows: no voice, the short voice and the long one in turn."""
    voices = [None, bark.voice("random_0"), bark.voice("random_1")]
    return [Request(id=str(i), text=text, voice=voices[i % 3], sampling=GREEDY) for i, text in enumerate(TEXTS)]


def longest_and_shortest(bark) -> list[Request]:
    """Clips of one semantic token and of as many as a clip may have, each alone and with the longer voice."""
    g = bark.config.generation
    tokens = np.random.default_rng(5).integers(0, g.semantic_vocab_size, g.max_new_tokens)
    return [
        Request(id=f"{length} of {voice}", semantic=tokens[:length], voice=voice and bark.voice(voice), sampling=GREEDY)
        for length in (1, g.max_new_tokens)
        for voice in (None, "random_1")
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_tokens_end_to_end(shape, barks, references):
    bark, tally = barks(shape), Tally()
    requests = [*requests_for(bark), *longest_and_shortest(bark)]
    results = bark.synthesize(requests)
    assert all(isinstance(result, Result) for result in results), results
    for request, result in zip(requests, results, strict=True):
        compare(bark, references(shape), request, result, tally)
    print(f"\n{shape}: {tally.compared} choices equal, {tally.left_out} left out as near ties")
    assert tally.left_out * 10_000 < tally.compared + tally.left_out

    lengths, cap = [len(result.semantic) for result in results], bark.config.generation.max_new_tokens
    print(f"{shape}: clips of {lengths} semantic tokens")
    assert len(set(lengths[: len(TEXTS)])) > 3, "the random weights give lengths too alike to prove anything"
    assert lengths[len(TEXTS) :] == [1, 1, cap, cap]
    assert {result.id for result in results if result.stop_reason == "cap"} == CAPPED.get(shape, set())


def test_a_choice_is_excused_by_its_own_margin_only():
    """Two windows of two codebooks; another's near tie excuses nothing; what follows a difference is left out."""
    codes = np.zeros((4, 5), int)
    steps = np.array([[-1] * 5, [-1] * 5, [0, 0, 0, 2, 2], [1, 1, 1, 3, 3]])
    margins = np.ones((4, 5))
    margins[2, 1] = margins[3, 4] = 1e-6
    theirs = FineChoices(codes, margins, steps)
    ours, tally = codes.copy(), Tally()
    tally.check_fine(ours, theirs, "equal")
    assert (tally.compared, tally.left_out) == (10, 0)
    ours[2, 1], ours[3, 0] = 1, 1
    tally.check_fine(ours, theirs, "excused")
    assert (tally.compared, tally.left_out) == (12, 8)
    ours[2, 2] = 1
    with pytest.raises(AssertionError, match=r"it: codebook 2 frame 2 differs at a margin of 1.00e\+00"):
        tally.check_fine(ours, theirs, "it")
    with pytest.raises(AssertionError, match=r"it: choice 1 differs at a margin of 1.00e\+00"):
        tally.check(np.array([1, 2, 3]), np.array([1, 1, 3]), np.array([0.0, 1.0, 0.0]), "it")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("part", ["semantic", "coarse"])
def test_causal_logits(shape, part, folders, references):
    """All positions of a random sequence, float32."""
    checkpoint, model = folders[shape], references(shape).model
    config = getattr(checkpoint.config, part)
    graph, state = nnx.split(nnx.eval_shape(build(checkpoint.config, part, np.float32)))
    network = nnx.merge(
        graph, jax.tree.map(jax.numpy.asarray, fill(state, read_parameters(checkpoint, part), part, jax.numpy.float32))
    )
    ids = np.random.default_rng(0).integers(0, config.input_vocab_size, (2, 50))
    theirs_model = model.semantic if part == "semantic" else model.coarse_acoustics
    with torch.no_grad():
        theirs = theirs_model(torch.tensor(ids)).logits.numpy()
    errors = []
    for length in (1, 17, 50):
        hidden, _ = network.prefill(network.token_embedding(ids), np.full(2, length), 50)
        ours = network.logits(hidden, 0, config.output_vocab_size)
        errors.append(np.abs(np.asarray(ours) - theirs[:, length - 1]).max())
    print(f"\n{shape} {part}: max abs logit error {max(errors):.1e} of logits up to {np.abs(theirs).max():.1f}")
    assert max(errors) <= MAX_LOGIT_ERROR


def fine_logit_error(checkpoint, reference) -> tuple[float, float]:
    """Largest difference of the fine logits over all codebooks, on random codes, and the largest logit."""
    config, g = checkpoint.config.fine, checkpoint.config.generation
    graph, state = nnx.split(nnx.eval_shape(build(checkpoint.config, "fine", np.float32)))
    network = nnx.merge(
        graph, jax.tree.map(jax.numpy.asarray, fill(state, read_parameters(checkpoint, "fine"), "fine", np.float32))
    )
    codes = np.random.default_rng(0).integers(
        0, g.codebook_size + 1, (1, config.n_codes_total, g.max_fine_input_length)
    )
    worst = peak = 0.0
    for codebook in range(g.n_coarse_codebooks, config.n_codes_total):
        with torch.no_grad():
            theirs = reference.model.fine_acoustics(codebook, torch.tensor(codes.transpose(0, 2, 1))).logits.numpy()
        ours = np.asarray(network(codes, codebook, config.output_vocab_size))
        worst, peak = max(worst, float(np.abs(ours - theirs).max())), max(peak, float(np.abs(theirs).max()))
    return worst, peak


@pytest.mark.parametrize("shape", SHAPES)
def test_fine_logits(shape, folders, references):
    error, peak = fine_logit_error(folders[shape], references(shape))
    print(f"\n{shape} fine: max abs logit error {error:.1e} of logits up to {peak:.1f}")
    assert error <= MAX_LOGIT_ERROR


def test_min_eos_p_of_transformers(bark, references):
    """P(end) > min_eos_p on raw logits ends a row early, at the same token."""
    from dataclasses import replace

    reference, shorter = references("tiny"), 0
    for request in requests_for(bark):
        sampling = Sampling.greedy("transformers")
        eager = replace(request, sampling=replace(sampling, semantic=replace(sampling.semantic, min_eos_p=0.02)))
        [result] = bark.synthesize([eager], to="semantic")
        theirs = reference.semantic(bark._ids(request), request.voice, min_eos_p=0.02).tokens
        ours = result.semantic.tolist() if isinstance(result, Result) else []
        assert ours == theirs
        shorter += len(theirs) < len(reference.semantic(bark._ids(request), request.voice).tokens)
    assert shorter, "no row ended earlier: the test proves nothing"


@pytest.mark.parametrize("shape", SHAPES)
def test_codec_encode(shape, barks, references):
    bark, codec = barks(shape), references(shape).model.codec_model
    rng = np.random.default_rng(0)
    audio = [rng.standard_normal(length).astype(np.float32) * 0.3 for length in (24_000, 320, 1000, 31_999)]
    ours = bark.encode(audio)
    for codes, waveform in zip(ours, audio, strict=True):
        with torch.no_grad():
            theirs = codec.encode(torch.tensor(waveform)[None, None], bandwidth=codec.config.target_bandwidths[-1])
        theirs = theirs.audio_codes[0, 0].numpy()[: bark.config.generation.n_fine_codebooks]
        assert np.array_equal(codes, theirs)
