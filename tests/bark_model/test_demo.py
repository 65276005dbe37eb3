"""The voice that ships: it loads from the package, ends by itself, and speaks transformers' tokens."""

import jax
import numpy as np

from bark_model import Bark, Request, Result, Sampling
from bark_model.coarse import unflatten_ids
from tests.bark_model.reference import Reference
from tests.bark_model.test_parity import MAX_LOGIT_ERROR, Tally


def test_greedy_tokens_of_the_demo_voice_are_transformers():
    """One sentence, one voice, greedy; its weights are float16 in the file and float32 in both programs."""
    bark = Bark.load("demo", slots=1, devices=jax.local_devices()[:1])
    reference, tally = Reference(bark.checkpoint.folder), Tally()
    request = Request(
        id="window",
        text="She opened the window.",
        voice=bark.voice("v2/en_speaker_0"),
        sampling=Sampling.greedy("transformers"),
    )
    [result] = bark.synthesize([request])
    assert isinstance(result, Result)
    assert result.stop_reason == "eos"
    theirs = reference.semantic(bark._ids(request), request.voice)
    tally.check(result.semantic, np.array(theirs.tokens), np.array(theirs.margins), "semantic")
    choices = reference.coarse(result.semantic, request.voice)
    codes = unflatten_ids(np.array(choices.tokens), bark.config.generation)
    tally.check(result.coarse.T.ravel(), codes.T.ravel(), np.array(choices.margins), "coarse")
    fine, margins = reference.fine(np.array(choices.tokens), request.voice)
    assert np.array_equal(result.fine, fine) or margins.min() <= MAX_LOGIT_ERROR
    audio = reference.decode(result.fine)
    assert np.abs(result.audio - audio).max() <= 1e-5 * np.abs(audio).max()
    assert tally.compared > 100
    assert not tally.left_out
