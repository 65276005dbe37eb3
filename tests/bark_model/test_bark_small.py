"""bark-small at its real size, random weights, end to end against transformers. Minutes: `make test-slow`."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from bark_model import Bark, Request, Result, Sampling
from bark_model.coarse import unflatten_ids
from bark_model.random_checkpoint import bark_preset, write_random
from tests.bark_model.reference import Reference
from tests.bark_model.test_parity import Tally, fine_logit_error


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_bark_small_end_to_end(tmp_path):
    """Two clips of up to 80 semantic tokens (the cap is lowered, nothing else), one with a voice."""
    small = bark_preset(12, 12, 768)
    config = replace(small, generation=replace(small.generation, max_new_tokens=80))
    checkpoint = write_random(tmp_path, config, seed=1, voices=1)
    reference = Reference(tmp_path)
    error, peak = fine_logit_error(checkpoint, reference)
    print(f"\nbark-small fine: max abs logit error {error:.1e} of logits up to {peak:.0f}")
    assert error <= 5e-6 * peak
    bark = Bark.load(checkpoint, slots=2, devices=jax.local_devices()[:1])
    sampling = Sampling.greedy("transformers")
    requests = [
        Request(id="plain", text="A short sentence of speech.", sampling=sampling),
        Request(id="voiced", text="Another one, with a voice.", voice=bark.voice("random_0"), sampling=sampling),
    ]
    tally = Tally()
    for request, result in zip(requests, bark.synthesize(requests), strict=True):
        assert isinstance(result, Result)
        semantic = reference.semantic(bark._ids(request), request.voice)
        tally.check(result.semantic, np.array(semantic.tokens), np.array(semantic.margins), f"{request.id} semantic")
        choices = reference.coarse(result.semantic, request.voice)
        codes = unflatten_ids(np.array(choices.tokens), config.generation)
        tally.check(result.coarse.T.ravel(), codes.T.ravel(), np.array(choices.margins), f"{request.id} coarse")
        fine, margins = reference.fine(np.array(choices.tokens), request.voice)
        assert np.array_equal(result.fine, fine) or margins.min() <= error
        tally.compared += int((result.fine == fine).sum())
        tally.left_out += int((result.fine != fine).sum())
        audio = reference.decode(result.fine)
        assert np.abs(result.audio - audio).max() <= 1e-5 * np.abs(audio).max()
    print(f"\nbark-small: {tally.compared} choices equal, {tally.left_out} left out as near ties")
    assert tally.left_out * 10_000 < tally.compared
