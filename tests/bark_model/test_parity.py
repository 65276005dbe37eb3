"""Greedy tokens equal transformers', stage by stage and end to end; logits and audio as close as float32 allows.

Every choice's margin is kept. Choices closer than the measured logit error may differ; they are counted over all
shapes and must be under 1 in 10,000.
"""

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from bark_model import Request, Result, Sampling
from bark_model.coarse import unflatten_ids
from bark_model.networks import build, fill, read_parameters
from tests.bark_model.conftest import SHAPES

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
MAX_LOGIT_ERROR = 5e-5
"""Largest difference of the two implementations' float32 logits; the tests below measure and print it."""


class Tally:
    """Compares choice by choice: equal, or excused by a margin below the error, which ends the row's comparison."""

    def __init__(self):
        self.compared = self.left_out = 0

    def check(self, ours: np.ndarray, theirs: np.ndarray, margins: np.ndarray, where: str) -> None:
        different = np.flatnonzero(ours[: len(theirs)] != theirs[: len(ours)])
        end = different[0] if len(different) else min(len(ours), len(theirs))
        if len(different) or len(ours) != len(theirs):
            margin = margins[end]
            assert margin <= MAX_LOGIT_ERROR, f"{where}: choice {end} differs at a margin of {margin:.2e}"
        self.compared += int(end)
        self.left_out += max(len(ours), len(theirs)) - int(end)


def requests_for(bark) -> list[Request]:
    """Ragged rows: no voice, the short voice and the long one in turn."""
    voices = [None, bark.voice("random_0"), bark.voice("random_1")]
    return [
        Request(id=str(i), text=text, voice=voices[i % 3], sampling=Sampling.greedy("transformers"))
        for i, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_tokens_end_to_end(shape, barks, references):
    """Each stage is compared from our own tokens of the stage before, so that a near tie costs one stage only."""
    bark, reference, tally = barks(shape), references(shape), Tally()
    requests = requests_for(bark)
    results = bark.synthesize(requests)
    assert all(isinstance(result, Result) for result in results), results
    for request, result in zip(requests, results, strict=True):
        theirs = reference.semantic(bark._ids(request), request.voice)
        tally.check(result.semantic, np.array(theirs.tokens), np.array(theirs.margins), f"semantic {request.id}")

        choices = reference.coarse(result.semantic, request.voice)
        theirs_ids = np.array(choices.tokens)
        theirs_codes = unflatten_ids(theirs_ids, bark.config.generation)
        tally.check(result.coarse.T.ravel(), theirs_codes.T.ravel(), np.array(choices.margins), f"coarse {request.id}")

        if np.array_equal(result.coarse, theirs_codes):
            fine, margins = reference.fine(theirs_ids, request.voice)
            excused = margins.min() <= MAX_LOGIT_ERROR
            assert np.array_equal(result.fine, fine) or excused, f"fine {request.id}"
            same = int((result.fine == fine).sum())
            tally.compared, tally.left_out = tally.compared + same, tally.left_out + fine.size - same

        audio = reference.decode(result.fine)
        peak = np.abs(audio).max()
        assert result.audio.shape == audio.shape
        assert np.abs(result.audio - audio).max() <= 1e-5 * peak
    print(f"\n{shape}: {tally.compared} choices equal, {tally.left_out} left out as near ties")
    assert tally.left_out * 10_000 < tally.compared + tally.left_out
    lengths = [len(result.semantic) for result in results]
    assert len(set(lengths)) > 3, f"the random weights give lengths {lengths}: too alike to prove anything"


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
